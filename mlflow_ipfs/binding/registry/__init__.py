"""The model registry: frozen versions, their pins and tags."""
