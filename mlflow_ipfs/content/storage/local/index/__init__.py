"""Index: the SQLite database of a local store, its directory and its format."""
