"""Deletion of tombstoned files: first their rows, in transactions of limited size, then the files."""

from __future__ import annotations

import stat
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.open_publications import oldest_open
from mlflow_ipfs.content.system.locking import LONGEST_PAUSE_SECONDS
from mlflow_ipfs.errors import StoreFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_ROWS_PER_TRANSACTION: Final = 5_000  # these rows are scattered over the index
_PAUSE_SECONDS: Final = 1.2 * LONGEST_PAUSE_SECONDS  # between transactions, so that other writers get the lock
_FEWEST_ROWS: Final = 100  # the reserve has room for these, however scattered the rows are


class Sweeper:
    """A deleter of tombstoned files: those with a negative ``condemned_at``, which no reader can find.

    Any number of sweepers may run at once. SQLite reuses the ids of deleted rows, so the name identifies a file too.
    """

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._rows = _ROWS_PER_TRANSACTION

    def run(self) -> None:
        """Delete the rows of all tombstoned files and of the blocks in them, then the files."""
        with self._context.database.read() as connection:
            places = connection.execute("SELECT id, name FROM place WHERE condemned_at < 0").fetchall()
        while places:
            done = self._step(partial(self._delete, places))
            for _, name in places[:done]:
                self._context.disk.remove(self._context.layout.directory / name)
            places = places[done:]
            if places:
                time.sleep(_PAUSE_SECONDS)

    def _step(self, change: Callable[[sqlite3.Connection], int]) -> int:
        """Run one transaction. On a full disk, retry with fewer rows, for which the log may have room."""
        while True:
            try:
                with self._context.database.write() as connection:
                    return change(connection)
            except StoreFullError:
                if self._rows <= _FEWEST_ROWS:
                    raise
                self._rows //= 10
                self._context.database.checkpoint()

    def _delete(self, places: Sequence[tuple[int, str]], connection: sqlite3.Connection) -> int:
        """Delete rows up to the limit of one transaction. Return how many files have no rows left."""
        remaining = self._rows
        for done, (place_id, name) in enumerate(places):
            if not _is_tombstoned(connection, place_id, name):
                continue  # another sweeper has deleted it
            deleted = connection.execute(
                "DELETE FROM block WHERE id IN (SELECT id FROM block WHERE place = ? LIMIT ?)", (place_id, remaining)
            ).rowcount
            remaining -= deleted
            if remaining <= 0:
                return done
            connection.execute("DELETE FROM place WHERE id = ?", (place_id,))
            remaining -= 1
        return len(places)


def _is_tombstoned(connection: sqlite3.Connection, place_id: int, name: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM place WHERE id = ? AND name = ? AND condemned_at < 0", (place_id, name)
    ).fetchone()
    return row is not None


def find_strays(context: StoreContext, grace_seconds: float) -> list[tuple[str, int]]:
    """Return files without a row, which a publication left behind when it was killed: names and sizes in bytes.

    Files younger than the grace period are left out: after an old backup of the index was restored, they may be needed.

    The list is empty while a publication is open, because the files may belong to it. The order of reading matters:
    files, then open publications, then rows. A publication whose file was listed is found open, or has ended before and
    written its row.
    """
    files = [
        (f"files/{path.parent.name}/{path.name}", path.lstat()) for path in context.layout.files.glob("*/*")
    ]  # files at another depth do not belong to the store
    if not files or oldest_open(context.layout) is not None:
        return []
    with context.database.read() as connection:
        known = {row[0] for row in connection.execute("SELECT name FROM place")}
    newest = time.time() - grace_seconds if grace_seconds > 0 else float("inf")
    return [
        (name, status.st_size)
        for name, status in files
        if name not in known and stat.S_ISREG(status.st_mode) and status.st_mtime <= newest
    ]
