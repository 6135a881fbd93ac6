"""MLflow model registry store for ``ipfs+sqlite://`` and ``ipfs+postgresql://``: versions are frozen."""

# MLflow loads this file at its own import; SQLAlchemy comes only with the first store.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore


def build_model_registry_store(store_uri: str) -> FreezingRegistryStore:
    """Build the store. MLflow calls this once per process and URI.

    Args:
        store_uri: ``ipfs+sqlite:///<file>``; may be the database of the tracking store.
    """
    from mlflow_ipfs.binding import mlflow_compat
    from mlflow_ipfs.binding.databases.connections import database_uri
    from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
    from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore

    with mlflow_errors():
        return FreezingRegistryStore(database_uri(store_uri), mlflow_compat.read_replica_uri())
