"""Connections to a database that is about to be adopted, and the check that it can be."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import sqlalchemy
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.connections import LOCK_SECONDS, opened_database
from mlflow_ipfs.errors import MlflowIpfsError, PolicyError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

_WITH_WORKSPACES: Final = ("experiments", "registered_models")
_DEFAULT_WORKSPACE: Final = "default"


@contextmanager
def opened_engine(url: URL) -> Iterator[Engine]:
    """Return an engine for reading and writing a database, for the duration of a ``with`` block.

    Raises:
        SettingsError: the database does not exist or cannot be read.
        MlflowIpfsError: the database cannot be changed.
    """
    with opened_database(url):  # raises if it does not exist, before SQLite would create it
        pass
    options = {"timeout": LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=options)
    try:
        yield engine
    except (SQLAlchemyError, MlflowException) as error:
        reason = getattr(error, "orig", None) or error
        msg = (
            f"MLflow's database {url.render_as_string(hide_password=True)} could not be changed ({reason}). Every location "
            "in it is still valid; run the command again to continue"
        )
        raise MlflowIpfsError(msg) from error
    finally:
        engine.dispose()


def check_changeable(engine: Engine) -> None:
    """Raise the database's error if this user cannot change it. It is not changed."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = version_num"))
        connection.rollback()


def check_adoptable(engine: Engine) -> None:
    """Check that MLflow, as it is installed, can use a database. The database is not changed.

    Raises:
        SettingsError: the database is not MLflow's, or another version of MLflow made it.
        PolicyError: the database has workspaces.
    """
    shown = engine.url.render_as_string(hide_password=True)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        if "experiments" not in tables:
            msg = f"{shown} does not have MLflow's tables; name MLflow's database with --backend-store-uri"
            raise SettingsError(msg)
        age = mlflow_compat.compare_schema(connection)
        workspaces = sorted(_read_workspaces(connection)) if age == "same" else []
    if age == "older":
        msg = (
            f"{shown} was made by an older version of MLflow. Stop the programs that use it, back it up, and run "
            f"`mlflow db upgrade {shown}`; then adopt it"
        )
        raise SettingsError(msg)
    if age == "newer":
        msg = (
            f"{shown} was made by a newer version of MLflow than the installed one; install that version, then adopt it"
        )
        raise SettingsError(msg)
    if workspaces:
        msg = (
            f"{shown} has the workspaces {', '.join(workspaces)}, whose model versions cannot be frozen yet; use MLflow's "
            "own stores with --artifacts-destination mfs://<root> for new artifacts"
        )
        raise PolicyError(msg)


def _read_workspaces(connection: Connection) -> set[str]:
    """Return the workspaces that are used, without the default one."""
    found: set[str] = set()
    for table in _WITH_WORKSPACES:
        query = (
            sqlalchemy.select(sqlalchemy.column("workspace", sqlalchemy.String))
            .select_from(sqlalchemy.table(table))
            .distinct()
        )
        found |= {str(name) for name in connection.execute(query).scalars()}
    return found - {_DEFAULT_WORKSPACE}
