"""Codecs: encoding and decoding of blocks, and the links in them."""
