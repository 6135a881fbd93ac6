"""Plugin module with the MLflow model registry store for ``ipfs+sqlite://`` and ``ipfs+postgresql://``."""

# MLflow loads this file at its own import; SQLAlchemy is loaded with the first store.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.binding import mlflow_process
from mlflow_ipfs.binding.databases.drivers import register_if_named

if TYPE_CHECKING:
    from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore


def build_model_registry_store(store_uri: str) -> FreezingRegistryStore:
    """Create a model registry store. MLflow calls this once per process and URI.

    Args:
        store_uri: ``ipfs+sqlite:///<file>`` or ``ipfs+postgresql://…``; may be the database of the tracking store.

    Raises:
        MlflowException: the URI or a setting is invalid, or MLflow's tables cannot be created.
    """
    from mlflow_ipfs.binding.artifacts.outside_notice import notify_operator
    from mlflow_ipfs.binding.databases.connections import database_uri
    from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
    from mlflow_ipfs.binding.redaction import protect_mlflow_logs
    from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore

    protect_mlflow_logs()
    with mlflow_errors():
        store = FreezingRegistryStore(database_uri(store_uri), mlflow_process.read_replica_uri())
    notify_operator(store.engine.url)
    return store


register_if_named()

# At L0 this is the only occasion for this package to run in a server before the first request for an artifact.
if mlflow_process.Server.current() is not None:
    from mlflow_ipfs.binding.server_setup import prepare_worker

    prepare_worker()
