"""Publishing blocks, files and names into a local store."""
