"""Checks of content: completeness, verification, comparison with files on disk."""
