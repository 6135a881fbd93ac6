"""A write barrier: while a gc marks, every CID that gets a name is noted, by whatever program gives it.

The gc marks what one snapshot of the names needs. What is named after that snapshot stands in the
log, and is marked before anything is deleted. Triggers do it, in the very transaction of the name.
Source: Pirinen, Barrier techniques for incremental tracing (1998), here for roots only.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local.index.database import Database
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.errors import StoreBusyError, StoreFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_logger = logging.getLogger(__name__)
_TIDY_SECONDS: Final = 0.5

_TABLES: Final = tuple(table.table for table in NAME_TABLES)
_EVENTS: Final = {"insert": "INSERT", "update": "UPDATE OF cid"}


class Barrier:
    """The log of what was named since the barrier was raised."""

    def __init__(self) -> None:
        self._last = 0

    def read(self, connection: sqlite3.Connection) -> list[CID]:
        """What was named since the last call."""
        rows = connection.execute("SELECT seq, cid FROM named WHERE seq > ? ORDER BY seq", (self._last,)).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [CID.from_bytes(row[1]) for row in rows]


@contextmanager
def raised(database: Database) -> Iterator[Barrier]:
    """Note what is named, for the length of a ``with``. One at a time: the caller holds ``gc.lock``."""
    with database.write() as connection:
        _remove(connection)  # of a gc that was killed
        connection.execute("CREATE TABLE named (seq INTEGER PRIMARY KEY, cid BLOB NOT NULL)")
        for table in _TABLES:
            for event, clause in _EVENTS.items():
                note = "BEGIN INSERT INTO named (cid) VALUES (new.cid); END"
                connection.execute(f"CREATE TRIGGER named_{table}_{event} AFTER {clause} ON {table} {note}")
    try:
        yield Barrier()
    finally:
        _lower(database)


def _lower(database: Database) -> None:
    """What the gc did is done, and its own error counts more: the log may stay for the next gc, or the next opening."""
    try:
        with database.write() as connection:
            _remove(connection)
    except (StoreBusyError, StoreFullError) as error:
        _logger.warning("the notes of this gc stay in the index until the store is opened next: %s", error)


def remove_leftovers(layout: Layout, disk: Disk, database: Database) -> None:
    """Remove the log of a gc that could not, or was killed: else every name is noted in it, for nobody.

    Args:
        layout: the store.
        disk: takes the commit.
        database: its index, opened.
    """
    with database.read() as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'named'").fetchone() is None:
            return
    # Whoever opens a store does not wait long for that: a gc may be running, or somebody writing.
    gc_lock, write_lock = (
        FileLock(path, timeout_seconds=seconds, purpose="is tidying up after a gc")
        for path, seconds in ((layout.gc_lock, 0), (layout.write_lock, _TIDY_SECONDS))
    )
    own = Database(layout, disk, write_lock, timeout_seconds=_TIDY_SECONDS)
    try:
        with suppress(StoreBusyError, StoreFullError), gc_lock.exclusive(), own.write() as connection:
            _remove(connection)
    finally:
        own.close()


def _remove(connection: sqlite3.Connection) -> None:
    for table in _TABLES:
        for event in _EVENTS:
            connection.execute(f"DROP TRIGGER IF EXISTS named_{table}_{event}")
    connection.execute("DROP TABLE IF EXISTS named")
