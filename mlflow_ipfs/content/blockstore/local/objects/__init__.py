"""Objects: files that lie in the store as they are, contiguous, so that they can be read without copying."""
