"""Artifacts: trees of files between MLflow and the store."""
