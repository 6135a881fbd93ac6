"""Readers of the blocks and files of a local store."""
