"""A write barrier: while a gc marks, every CID that gets a name is logged, whichever program adds the name.

gc marks the blocks that one snapshot of the names needs. CIDs that are named after the snapshot are in the log, and are
marked before anything is deleted. Triggers write the log in the transaction that adds the name.
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
_CLEANUP_SECONDS: Final = 0.5  # the longest wait for a lock when a store is opened

_TABLES: Final = tuple(table.table for table in NAME_TABLES)
_EVENTS: Final = {"insert": "INSERT", "update": "UPDATE OF cid"}


class Barrier:
    """The log of the CIDs that were named since the barrier was raised."""

    def __init__(self) -> None:
        self._last = 0  # the sequence number of the last row read

    def read(self, connection: sqlite3.Connection) -> list[CID]:
        """Return the CIDs that were named since the last call."""
        rows = connection.execute("SELECT seq, cid FROM named WHERE seq > ? ORDER BY seq", (self._last,)).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [CID.from_bytes(row[1]) for row in rows]


@contextmanager
def write_barrier(database: Database) -> Iterator[Barrier]:
    """Log every CID that gets a name, for the length of a ``with``. The caller must hold ``gc.lock``."""
    with database.write() as connection:
        _remove(connection)  # left behind by a gc that was killed
        connection.execute("CREATE TABLE named (seq INTEGER PRIMARY KEY, cid BLOB NOT NULL)")
        for table in _TABLES:
            for event, clause in _EVENTS.items():
                action = "BEGIN INSERT INTO named (cid) VALUES (new.cid); END"
                connection.execute(f"CREATE TRIGGER named_{table}_{event} AFTER {clause} ON {table} {action}")
    try:
        yield Barrier()
    finally:
        _lower(database)


def _lower(database: Database) -> None:
    """Remove the log, or log a warning if that fails.

    By then the gc has done its work, or has raised an error of its own, which must not be replaced. A log that is left
    is removed by the next gc, or when the store is opened next.
    """
    try:
        with database.write() as connection:
            _remove(connection)
    except (StoreBusyError, StoreFullError) as error:
        _logger.warning(
            "gc could not remove its list of new names from the index: %s. The next gc or opening of the store will",
            error,
        )


def remove_leftovers(layout: Layout, disk: Disk, database: Database) -> None:
    """Remove the log of a gc that was killed or could not remove it. Otherwise it would grow with every new name.

    Args:
        layout: the paths of the store.
        disk: commits the change.
        database: the open index of the store.
    """
    with database.read() as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'named'").fetchone() is None:
            return
    # Opening a store must not wait long for this: a gc may be running, or another process may be writing.
    gc_lock, write_lock = (
        FileLock(path, timeout_seconds=seconds, purpose="is cleaning up after a gc")
        for path, seconds in ((layout.gc_lock, 0), (layout.write_lock, _CLEANUP_SECONDS))
    )
    own = Database(layout, disk, write_lock, timeout_seconds=_CLEANUP_SECONDS)
    try:
        with suppress(StoreBusyError, StoreFullError), gc_lock.exclusive(), own.write() as connection:
            _remove(connection)
    finally:
        own.close()


def _remove(connection: sqlite3.Connection) -> None:
    """Drop the log and its triggers, if they exist."""
    for table in _TABLES:
        for event in _EVENTS:
            connection.execute(f"DROP TRIGGER IF EXISTS named_{table}_{event}")
    connection.execute("DROP TABLE IF EXISTS named")
