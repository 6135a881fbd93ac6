"""Deleting: rows in transactions of limited size, and files after their rows."""

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

_ROWS_PER_TRANSACTION: Final = 5_000  # their places in the index lie far apart
_PAUSE_SECONDS: Final = 1.2 * LONGEST_PAUSE_SECONDS  # between transactions, so that others get the lock
_FEWEST_ROWS: Final = 100  # what the reserve has room for, however the rows lie in the index


class Sweeper:
    """Deletes what is doomed: files whose ``condemned_at`` is negative, which nobody can find any more.

    Any number may run at once. SQLite gives the id of a row that is gone to a new one, so a file is known by its name.
    """

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._rows = _ROWS_PER_TRANSACTION

    def run(self) -> None:
        """Delete the rows of doomed files and of the blocks in them, then the files."""
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
        """Run one transaction; on a full disk again with fewer rows, for which there may be room in the log."""
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
        """Returns how many files are done with."""
        room = self._rows
        for done, (place_id, name) in enumerate(places):
            if not _is_doomed(connection, place_id, name):
                continue  # somebody else was faster
            gone = connection.execute(
                "DELETE FROM block WHERE id IN (SELECT id FROM block WHERE place = ? LIMIT ?)", (place_id, room)
            ).rowcount
            room -= gone
            if room <= 0:
                return done
            connection.execute("DELETE FROM place WHERE id = ?", (place_id,))
            room -= 1
        return len(places)


def _is_doomed(connection: sqlite3.Connection, place_id: int, name: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM place WHERE id = ? AND name = ? AND condemned_at < 0", (place_id, name)
    ).fetchone()
    return row is not None


def find_strays(context: StoreContext, grace_seconds: float) -> list[tuple[str, int]]:
    """Files that a publication moved into place and then did not live to commit: names and sizes in bytes.

    Younger ones than the grace are left out: after an old backup was put back, they may be wanted.

    None while anybody publishes: the files might be theirs. The order matters: files, then who
    publishes, then rows. Whose file was seen has either ended since, with its row, or is seen.
    """
    files = [
        (f"files/{path.parent.name}/{path.name}", path.lstat()) for path in context.layout.files.glob("*/*")
    ]  # what else somebody put there is not ours to judge
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
