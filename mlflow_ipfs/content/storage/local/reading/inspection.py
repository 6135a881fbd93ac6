"""Read-only inspection of a store without opening it: its contents and its condition, for reports to users."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.open_publications import PUBLICATION_PREFIX
from mlflow_ipfs.content.storage.local.files.sessions import HOLD_PREFIX
from mlflow_ipfs.content.storage.local.index.creating import lost_index
from mlflow_ipfs.content.storage.local.index.error_translation import explain
from mlflow_ipfs.content.storage.local.index.index_file import open_index_file, unreadable_index
from mlflow_ipfs.content.storage.local.index.layout import Layout, read_format
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.system.mounts import file_system_type

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from pathlib import Path

SAFE_SQLITE: Final = (3, 51, 3)  # the first release without the WAL-reset bug, https://sqlite.org/wal.html

_LABELS: Final = {"block": "blocks", "place": "files", "pin": "pins", "ref": "refs", "entry": "entries"}
_TABLES: Final = {table: _LABELS.get(table, table) for table in ("block", "place", *(t.table for t in NAME_TABLES))}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds.

    Attributes:
        counts: number of rows of each kind: ``blocks``, ``files``, ``pins``, ``refs``, ``entries`` (files of
            ``mfs://``), ``frozen`` paths, ``outbox``.
        stored_bytes: size of all files of the store and of the blocks inside its index.
        cached_bytes: size of the files that may be evicted at any time.
        damaged_files: number of files in which a damaged block was found.
    """

    counts: dict[str, int]
    stored_bytes: int
    cached_bytes: int
    damaged_files: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """Number of sessions whose process uses a store, and of sessions that a killed process left behind."""

    live: int
    dead: int


def read_store_id(directory: Path) -> str:
    """Return the id of the store in a directory.

    Raises:
        StoreFormatError: ``format.json`` is invalid, or this version cannot open the store.
        FileNotFoundError: the directory has no ``format.json``.
    """
    return read_format(Layout(directory))


def count_contents(directory: Path) -> Contents:
    """Return what the store holds, from its index, which is opened for reading only.

    Raises:
        StoreFormatError: the index is missing or damaged.
    """
    layout = Layout(directory)
    try:
        with closing(open_index_file(layout.database, is_live=True)) as connection:
            counts = {name: _number(connection, f"SELECT count(*) FROM {table}") for table, name in _TABLES.items()}  # noqa: S608 - fixed texts
            files = _number(connection, "SELECT coalesce(sum(size), 0) FROM place")
            inline = _number(connection, "SELECT coalesce(sum(length(data)), 0) FROM block WHERE data IS NOT NULL")
            cached = _number(connection, "SELECT coalesce(sum(size), 0) FROM place WHERE class = 'cache'")
            damaged = _number(
                connection,
                "SELECT count(*) FROM place WHERE damaged AND EXISTS (SELECT 1 FROM block b WHERE b.place = place.id)",
            )
    except sqlite3.Error as error:
        if not layout.database.exists():
            raise lost_index(layout) from error
        raise explain(layout, error) or unreadable_index(layout.database, error) from error
    return Contents(counts, files + inline, cached, damaged)


def _number(connection: sqlite3.Connection, query: str) -> int:
    value: int = connection.execute(query).fetchone()[0]
    return value


def count_sessions(directory: Path) -> Sessions:
    """Count the sessions whose process is alive, and those whose process has ended.

    A session that this user may not read counts as live, because its process may be alive.
    """
    live = dead = 0
    for path in Layout(directory).sessions.iterdir():
        if path.name.startswith((PUBLICATION_PREFIX, HOLD_PREFIX)):
            continue  # of a publication or an import, whose process also has a session
        try:
            is_held = _is_locked(path)
        except FileNotFoundError:  # the session has just ended
            continue
        except PermissionError:
            is_held = True
        live += is_held
        dead += not is_held
    return Sessions(live, dead)


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file. Does not write the process id of this process to the file."""
    if sys.platform == "win32":
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def log_bytes(directory: Path) -> int:
    """Return the size of the changes in SQLite's log that are not in the index yet, in bytes."""
    try:
        return Layout(directory).log.stat().st_size
    except FileNotFoundError:
        return 0


def count_quarantined(directory: Path) -> int:
    """Return the number of damaged files in quarantine. Old indexes, which are in subdirectories, are not counted."""
    return sum(path.is_file() for path in Layout(directory).quarantine.iterdir())


def file_system_of(directory: Path) -> str | None:
    """Return the type of the file system that holds an existing directory; None if the system does not report it."""
    return file_system_type(directory.resolve())
