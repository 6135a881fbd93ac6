"""Copies of a whole store, taken in one moment while others write to it."""
