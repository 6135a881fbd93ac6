"""Garbage collection and the cache of a local store."""
