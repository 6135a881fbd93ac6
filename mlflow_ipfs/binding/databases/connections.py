"""Read connections to MLflow's database, for data that MLflow's own classes do not provide."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.locations import STORE_PREFIX
from mlflow_ipfs.binding.redaction import hide_secrets, show_url
from mlflow_ipfs.errors import NotFoundError, SettingsError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

PREFIX: Final = STORE_PREFIX
LOCK_SECONDS: Final = 30.0  # MLflow's writers hold SQLite's lock only for the duration of a commit


def database_uri(store_uri: str) -> str:
    """Return MLflow's own URI of the database that an ``ipfs+…`` URI names.

    Raises:
        SettingsError: the URI does not start with ``ipfs+``, or MLflow's workspaces are enabled.
    """
    if not store_uri.startswith(PREFIX):
        msg = f"{store_uri.partition(':')[0]!r} is not a store URI of mlflow-ipfs; write ipfs+sqlite:///<file>"
        raise SettingsError(msg)
    if mlflow_compat.workspaces_enabled():
        msg = (
            "ipfs+ stores do not support MLflow's workspaces (MLFLOW_ENABLE_WORKSPACES) yet; disable workspaces, or use "
            "MLflow's own --backend-store-uri and --registry-store-uri with --artifacts-destination mfs://<root>"
        )
        raise SettingsError(msg)
    return name_driver(store_uri.removeprefix(PREFIX))


def shown_uri(url: URL) -> str:
    """Return the URI of a database for messages and commands: without the password and without the driver."""
    return show_url(url.set(drivername=url.get_backend_name()))


@contextmanager
def opened_database(
    url: URL, timeout_seconds: float = LOCK_SECONDS, *, is_read_only: bool = False
) -> Iterator[Connection]:
    """Connect to MLflow's database for reading, and disconnect at the end of the ``with`` statement.

    Args:
        url: the database.
        timeout_seconds: how long to wait for a program that locks a SQLite database.
        is_read_only: let SQLite refuse every write to the file. Works for a file without write permission.

    Raises:
        StoreBusyError: another program locked the database for too long.
        NotFoundError: the database is a SQLite file that does not exist.
        SettingsError: the database cannot be read.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    shown = show_url(url)
    if is_sqlite and not Path(url.database or "").is_file():  # SQLite would create it
        msg = f"the database {shown} does not exist; name another one"
        raise NotFoundError(msg)
    if is_sqlite and is_read_only:
        name = f"{Path(url.database or '').absolute().as_uri()}?mode=ro"
        engine = sqlalchemy.create_engine(
            url, poolclass=NullPool, creator=lambda: sqlite3.connect(name, uri=True, timeout=timeout_seconds)
        )
    else:
        options = {"timeout": timeout_seconds} if is_sqlite else {}
        engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=options)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        if _is_busy(error):
            msg = f"another program keeps MLflow's database {shown} locked; end that program, or try again later"
            raise StoreBusyError(msg) from error
        reason = hide_secrets(str(getattr(error, "orig", None) or error))
        msg = f"MLflow's database {shown} cannot be read: {reason}; name another one"
        raise SettingsError(msg) from error
    finally:
        engine.dispose()


def _is_busy(error: SQLAlchemyError) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
