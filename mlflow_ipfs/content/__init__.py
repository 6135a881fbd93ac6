"""Bytes to CIDs and back. Standard library only; knows no MLflow, no framework, no environment."""
