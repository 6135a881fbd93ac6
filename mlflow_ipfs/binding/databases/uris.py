"""``ipfs+sqlite:///…``: the databases that our stores open."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.errors import SettingsError

PREFIX: Final = "ipfs+"
_POSTGRESQL: Final = "postgresql"
_DRIVERS: Final = ("psycopg", "psycopg2")  # that SQLAlchemy has taken by itself: 2.1 the first, older ones the second


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
    return name_driver(store_uri.removeprefix(PREFIX))


def name_driver(uri: str) -> str:
    """Name the driver in a URI that names none, if SQLAlchemy may take one by itself that isn't installed.

    MLflow's documentation says psycopg2, and SQLAlchemy 2.1 takes psycopg.
    """
    scheme, _, rest = uri.partition(":")
    installed = [driver for driver in _DRIVERS if find_spec(driver) is not None]
    if scheme != _POSTGRESQL or len(installed) != 1:
        return uri
    return f"{scheme}+{installed[0]}:{rest}"
