"""The doors: each file is named by the MLflow entry-point group that loads it."""
