"""Codecs: the bytes of blocks, and what they link to."""
