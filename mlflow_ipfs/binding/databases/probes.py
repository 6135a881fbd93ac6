"""Probes of MLflow's databases: the location of a database, and whether another location still has a registry id.

The rules are in ``database_locations.py``.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases.database_locations import POSTGRESQL, SQLITE, DatabaseLocation
from mlflow_ipfs.binding.registry_id import TABLE, read_registry_id

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine import Connection, Engine


def find_location(connection: Connection) -> DatabaseLocation | None:
    """Return the location of the database of a connection; None for a database in memory.

    Raises:
        OSError: the status of the database file cannot be read.
    """
    url = connection.engine.url
    kind, now = url.get_backend_name(), int(time.time())
    if kind == SQLITE:
        if is_in_memory(url):
            return None
        # The path that is open: a relative one in the URL may mean another file after the process changed its directory.
        opened = connection.exec_driver_sql("PRAGMA database_list").all()
        path = Path(next(row[2] for row in opened if row[1] == "main")).resolve()
        status = path.stat()
        return DatabaseLocation(kind, str(path), socket.gethostname(), f"{status.st_dev}:{status.st_ino}", now, now)
    name = f"{url.host or ''}:{url.port or ''}/{url.database or ''}"
    identity = _postgres_identity(connection, name) if kind == POSTGRESQL else name
    return DatabaseLocation(kind, name, "", identity, now, now)


def is_in_memory(url: URL) -> bool:
    """Return True if a SQLite database has no file, or has a ``file:`` URI, which only SQLite can resolve."""
    return url.get_backend_name() == SQLITE and (not url.database or url.database.startswith((":memory:", "file:")))


def _postgres_identity(connection: Connection, name: str) -> str:
    oid = connection.execute(
        sqlalchemy.text("SELECT oid FROM pg_database WHERE datname = current_database()")
    ).scalar_one()
    return f"{_system_identifier(connection) or name}/{oid}"


def _system_identifier(connection: Connection) -> str | None:
    """Return the unique number of a PostgreSQL cluster; None if the database user may not read it."""
    try:
        with connection.begin_nested():
            found = connection.execute(sqlalchemy.text("SELECT system_identifier FROM pg_control_system()"))
            return str(found.scalar_one())
    except DBAPIError:
        return None


def is_gone(location: DatabaseLocation, registry_id: str, engine: Engine | None) -> bool:
    """Return True if an earlier location of a registry id is gone (rule 2).

    Args:
        location: the earlier location.
        registry_id: the registry id that was seen there.
        engine: engine of the database that has the id now; None if there is none, so that only files can be checked.
    """
    if location.kind == SQLITE:
        return location.host == socket.gethostname() and _has_left_file(location, registry_id)
    if location.kind == POSTGRESQL and engine is not None and engine.url.get_backend_name() == POSTGRESQL:
        return _has_left_postgres(location, registry_id, engine)
    return False


def _has_left_file(location: DatabaseLocation, registry_id: str) -> bool:
    path = Path(location.name)
    try:
        path.stat()
        query = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(query, uri=True, timeout=5)) as connection:
            row = connection.execute(f"SELECT registry_id FROM {TABLE}").fetchone()  # noqa: S608 - a fixed name
    except (FileNotFoundError, NotADirectoryError):
        return _is_on_its_disk(path, location)
    except OSError:
        return False
    except sqlite3.Error as error:
        # Only a database without the table certainly has no id; a busy or unreadable database may still have it.
        return "no such table" in str(error)
    return row is None or row[0] != registry_id


def _is_on_its_disk(path: Path, location: DatabaseLocation) -> bool:
    """Return True if a path is on the disk on which the location's file was seen.

    A file that is absent may be on a disk that is not mounted now, or in a container that has the same host name.
    """
    try:
        parent = next(parent for parent in path.parents if parent.is_dir())
        return str(parent.stat().st_dev) == location.identity.partition(":")[0]
    except (OSError, StopIteration):
        return False


def _has_left_postgres(location: DatabaseLocation, registry_id: str, engine: Engine) -> bool:
    cluster, _, oid = location.identity.rpartition("/")
    with engine.connect() as connection:
        if not oid.isdecimal() or cluster != _system_identifier(connection):
            return False
        query = sqlalchemy.text("SELECT datname FROM pg_database WHERE oid = :oid")
        name = connection.execute(query, {"oid": int(oid)}).scalar()
    if name is None:
        return True
    try:
        return _read_id(engine.url.set(database=name)) != registry_id
    except DBAPIError:
        return False


def _read_id(url: URL) -> str | None:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return read_registry_id(connection)
    finally:
        engine.dispose()
