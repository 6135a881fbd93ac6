"""The plugin modules. Each is named after the MLflow entry-point group that loads it."""
