"""PostgreSQL drivers: the one that is installed, and SQLAlchemy's dialects for the URIs of this package.

SQLAlchemy's default may be a driver that is not installed: MLflow's documentation recommends psycopg2, and SQLAlchemy 2.1
defaults to psycopg. SQLAlchemy is imported at first use, because this module is loaded by every client.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.mlflow_process import SERVER_BACKEND_STORE, SERVER_REGISTRY_STORE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Dialect

_POSTGRESQL: Final = "postgresql"
_DRIVERS: Final = ("psycopg", "psycopg2")  # defaults of SQLAlchemy: the first one since 2.1, the second one before
_MODULE: Final = "sqlalchemy.dialects.postgresql"
# URIs that SQLAlchemy cannot load without ``register_dialects``: it finds no entry point whose name has two dots.
_UNREGISTERED: Final = (f"{_POSTGRESQL}:", f"ipfs+{_POSTGRESQL}:", f"ipfs+{_POSTGRESQL}+")
_VARIABLES: Final = (
    *("MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
    *(SERVER_BACKEND_STORE, SERVER_REGISTRY_STORE),  # in a worker
)


def only_driver() -> str | None:
    """Return the installed driver; None if both drivers or no driver is installed."""
    installed = [driver for driver in _DRIVERS if find_spec(driver) is not None]
    return installed[0] if len(installed) == 1 else None


def name_driver(uri: str) -> str:
    """Add the installed driver to a PostgreSQL URI that names no driver, and return the URI.

    If both drivers or no driver is installed, the URI is returned unchanged.
    """
    scheme, _, rest = uri.partition(":")
    driver = only_driver()
    if scheme != _POSTGRESQL or driver is None:
        return uri
    return f"{scheme}+{driver}:{rest}"


def default_dialect() -> type[Dialect]:
    """Return SQLAlchemy's dialect for PostgreSQL with the installed driver; else with SQLAlchemy's default driver."""
    driver = only_driver()
    found: type[Dialect] = import_module(f"{_MODULE}.{driver}" if driver else _MODULE).dialect
    return found


def register_dialects() -> None:
    """Make SQLAlchemy use the installed driver for URIs without a driver, and know those of this package.

    Without a driver in the URI, SQLAlchemy would look for its default driver and fail. MLflow's own stores then work
    too, which a server at L1 opens beside the registry of this package.
    """
    from sqlalchemy.dialects import registry

    for driver in _DRIVERS:
        registry.register(f"ipfs.{_POSTGRESQL}.{driver}", f"{_MODULE}.{driver}", "dialect")
    only = only_driver()
    if only is not None:
        for name in (_POSTGRESQL, f"ipfs.{_POSTGRESQL}"):
            registry.register(name, f"{_MODULE}.{only}", "dialect")


def register_if_named(words: Iterable[str] | None = None) -> None:
    """Register the dialects if a PostgreSQL database is named. Otherwise SQLAlchemy is not imported.

    Args:
        words: the words to search; None: the command line of this process, and MLflow's variables.
    """
    if words is None:
        words = [*sys.argv[1:], *(os.environ.get(name, "") for name in _VARIABLES)]
    if any(word.startswith(_UNREGISTERED) or word.partition("=")[2].startswith(_UNREGISTERED) for word in words):
        register_dialects()
