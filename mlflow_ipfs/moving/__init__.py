"""Taking an existing MLflow into the store (adopt), and out of it again (eject)."""
