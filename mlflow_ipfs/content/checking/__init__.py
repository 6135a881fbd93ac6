"""Checks of content: completeness, verification, and comparison with files on disk."""
