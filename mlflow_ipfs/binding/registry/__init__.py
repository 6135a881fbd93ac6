"""The model registry: frozen model versions, their pins and their tags."""
