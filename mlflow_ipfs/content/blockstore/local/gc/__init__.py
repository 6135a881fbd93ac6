"""Garbage collection beside those who publish; ``collecting`` has the protocol."""
