"""Storage: blocks, the names that retain them, and the maintenance of both."""
