"""Storage: blocks, the names that retain them, and everything that keeps both sound."""
