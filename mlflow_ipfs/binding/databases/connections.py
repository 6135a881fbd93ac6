"""Connections to MLflow's database for reading what MLflow's own classes do not tell."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

_LOCK_SECONDS: Final = 30.0  # for MLflow's writers, each of whom holds SQLite's lock for the length of a commit


@contextmanager
def opened_database(url: URL) -> Iterator[Connection]:
    """Connect to MLflow's database for reading, for the length of a ``with``.

    Raises:
        SettingsError: it can't be read.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    shown = url.render_as_string(hide_password=True)
    if is_sqlite and not Path(url.database or "").is_file():  # SQLite would create it
        msg = f"there is no database {shown}; name another one"
        raise SettingsError(msg)
    options = {"timeout": _LOCK_SECONDS} if is_sqlite else {}
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=options)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        msg = f"MLflow's database {shown} can't be read: {getattr(error, 'orig', None) or error}; name another one"
        raise SettingsError(msg) from error
    finally:
        engine.dispose()
