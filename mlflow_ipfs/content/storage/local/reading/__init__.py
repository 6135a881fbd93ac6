"""Reading blocks and files of a local store."""
