"""Commands that a command tells its user to run next.

MLflow takes longer to import than most commands take to run, so modules that need it are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlflow_ipfs.binding.locations import STORE_PREFIX

if TYPE_CHECKING:
    from sqlalchemy import URL


def server_command(url: URL, destination: str) -> str:
    """Return the server of a database whose artifacts are in the store, for a shell, without the database's password.

    Args:
        url: the database.
        destination: where the server keeps artifacts, an ``mfs://`` URI.
    """
    uri = _shown(url)
    registry = shlex.quote(f"{STORE_PREFIX}{uri}")
    return f"{plain_server_command(url)} --registry-store-uri {registry} --artifacts-destination {shlex.quote(destination)}"


def plain_server_command(url: URL) -> str:
    """Return the server of a database as MLflow starts it without this package."""
    return f"mlflow server --backend-store-uri {shlex.quote(_shown(url))}"


def direct_setting(url: URL) -> str:
    """Return the environment variable with which clients use a database and the store without a server."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(f'{STORE_PREFIX}{_shown(url)}')}"


def convert_command(url: URL) -> str:
    """Return the command after which a server can serve what was logged without one."""
    return f"mlflow-ipfs databases convert --to server --backend-store-uri {shlex.quote(_shown(url))}"


def _shown(url: URL) -> str:
    from mlflow_ipfs.binding.databases.connections import shown_uri

    return shown_uri(url)
