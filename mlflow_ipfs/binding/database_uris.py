"""``ipfs+sqlite:///…``: the databases that our stores open."""

from __future__ import annotations

from typing import Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.errors import SettingsError

PREFIX: Final = "ipfs+"


def database_uri(store_uri: str) -> str:
    """MLflow's own URI of the database that an ``ipfs+…`` URI names.

    Raises:
        SettingsError: not of that form, or MLflow's workspaces are on.
    """
    if not store_uri.startswith(PREFIX):
        msg = f"{store_uri.partition(':')[0]!r} is no store of mlflow-ipfs; write ipfs+sqlite:///<file>"
        raise SettingsError(msg)
    if mlflow_compat.workspaces_enabled():
        msg = (
            "MLflow's workspaces (MLFLOW_ENABLE_WORKSPACES) don't work with ipfs+ stores yet; switch them off, or use "
            "a stock --backend-store-uri and --registry-store-uri with --artifacts-destination mfs://<root>"
        )
        raise SettingsError(msg)
    return store_uri.removeprefix(PREFIX)
