"""Plugin module with the MLflow tracking store for ``ipfs+sqlite://`` and ``ipfs+postgresql://``."""

# MLflow loads this file at its own import; SQLAlchemy is loaded with the first store.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.binding.tracking_store import ContentTrackingStore


def build_tracking_store(store_uri: str, artifact_uri: str | None = None) -> ContentTrackingStore:
    """Create a tracking store. MLflow calls this once per process and URI.

    Args:
        store_uri: ``ipfs+sqlite:///<file>`` or ``ipfs+postgresql://…``.
        artifact_uri: the artifact root of experiments. A client passes None: then the server's setting is used, as for
            MLflow's own stores, and ``MLFLOW_IPFS_ROOT`` if the server has none.

    Raises:
        MlflowException: the URI or a setting is invalid, or MLflow's tables cannot be created.
    """
    from mlflow_ipfs.binding import mlflow_process
    from mlflow_ipfs.binding.artifacts.outside_notice import notify_operator
    from mlflow_ipfs.binding.databases.connections import database_uri
    from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
    from mlflow_ipfs.binding.redaction import protect_mlflow_logs
    from mlflow_ipfs.binding.tracking_store import ContentTrackingStore
    from mlflow_ipfs.config import Settings

    protect_mlflow_logs()
    with mlflow_errors():
        root = artifact_uri or os.environ.get(mlflow_process.SERVER_ARTIFACT_ROOT)
        if root == mlflow_process.DEFAULT_LOCAL_ROOT:
            root = None  # not set by a user: `mlflow server --no-serve-artifacts` fills in this default
        store = ContentTrackingStore(
            database_uri(store_uri),
            root,
            default_root=Settings.from_environment().root,
            read_database_uri=mlflow_process.read_replica_uri(),
        )
    notify_operator(store.engine.url)
    return store
