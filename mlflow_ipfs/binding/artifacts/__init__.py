"""Artifacts: the trees of files that MLflow reads from the store and writes to it."""
