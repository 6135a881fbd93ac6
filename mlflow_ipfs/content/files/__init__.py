"""Conversion of files and directories to DAGs and back."""
