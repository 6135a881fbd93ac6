"""A write barrier: while a gc marks, every CID that gets a name is noted, by whatever program gives it.

The gc marks what one snapshot of the names needs. What is named after that snapshot stands in the
log, and is marked before anything is deleted. Triggers do it, in the very transaction of the name.
Source: Pirinen, Barrier techniques for incremental tracing (1998), here for roots only.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from mlflow_ipfs.content.blockstore.local.database import Database

NAMES: Final = ("pin", "ref", "entry", "frozen", "outbox")  # the tables whose `cid` keeps content
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
        for table in NAMES:
            for event, clause in _EVENTS.items():
                note = "BEGIN INSERT INTO named (cid) VALUES (new.cid); END"
                connection.execute(f"CREATE TRIGGER named_{table}_{event} AFTER {clause} ON {table} {note}")
    try:
        yield Barrier()
    finally:
        with database.write() as connection:
            _remove(connection)


def _remove(connection: sqlite3.Connection) -> None:
    for table in NAMES:
        for event in _EVENTS:
            connection.execute(f"DROP TRIGGER IF EXISTS named_{table}_{event}")
    connection.execute("DROP TABLE IF EXISTS named")
