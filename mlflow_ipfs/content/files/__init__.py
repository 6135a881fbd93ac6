"""Files and directories into DAGs, and back."""
