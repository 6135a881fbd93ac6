"""The meaning of ``mlflow-artifacts:/`` for a client that uses MLflow's database directly, without a server.

A database gets such locations from a server: ``mlflow ui`` on ``ipfs+sqlite:///mlflow.db`` creates the default experiment
at ``mlflow-artifacts:/0``. The server resolves them below its ``--artifacts-destination``. A client without a server
resolves them below ``MLFLOW_IPFS_ROOT``, whose default is the destination that the README gives the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.binding.locations import PROXIED, STORE_PREFIX, scheme_of, split_proxied
from mlflow_ipfs.binding.mlflow_compat import current_tracking_uri
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.config import Settings

if TYPE_CHECKING:
    from mlflow_ipfs.content.mfs import MfsPath


def find_direct_path(uri: str, tracking_uri: str | None = None) -> MfsPath | None:
    """Return the mutable path that a ``mlflow-artifacts:/…`` location means in this process.

    Args:
        uri: the artifact location.
        tracking_uri: the tracking URI; None: the one that MLflow uses in this process.

    Returns:
        The path; None if an MLflow server resolves the location, because this process is a server or a server's client,
        or because the location names the server's host.

    Raises:
        InvalidPathError: the location is malformed.
        SettingsError: a setting has an unusable value.
    """
    if scheme_of(uri) != PROXIED or Server.current() is not None:
        return None
    if not (tracking_uri or current_tracking_uri()).startswith(STORE_PREFIX):
        return None
    host, path = split_proxied(uri)
    if host:
        return None
    root = Settings.from_environment().root
    return root.join(path) if path else root
