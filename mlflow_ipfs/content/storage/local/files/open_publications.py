"""Who is publishing, and since when: what a gc has to know before it deletes anything.

A publication relies on blocks that it found in the store, until it has given them a name. A gc
first *condemns* what nothing needs: from then on nobody who starts to publish relies on it. It
deletes condemned files only when no publication is left that started before. "Before" is counted
in condemnations, not in seconds, because clocks may be set back: each condemnation has a number,
larger than all before it, and a publication notes the last one that it knows.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.sessions import lock_new
from mlflow_ipfs.content.system.locking import try_flock

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.database import Database
    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

PREFIX: Final = "publication-"
KEEPS_ALL: Final = -1  # instead of a number: of one who relies on what is condemned already, or cached
LAST: Final = "last_condemnation"
_NUMBER_BYTES: Final = 40
_WAIT_SECONDS: Final = 1.0  # enough for small publications; a long upload is left to the next gc
_LOOK_SECONDS: Final = 0.02


class OpenPublication:
    """The sign that a publication is on its way: a locked file that dies with its process.

    Args:
        layout: where the store is.
        disk: removes the file.
        database: says which condemnation was the last.
        relies_on_deletable: nothing at all may be deleted, whenever it was condemned; for one who copies the store,
            or names what he finds in it.

    Raises:
        StoreFullError: there is no room for the file.
    """

    def __init__(self, layout: Layout, disk: Disk, database: Database, *, relies_on_deletable: bool = False) -> None:
        self._disk = disk
        self._file = lock_new(layout, PREFIX)
        try:
            # After the file is there: whoever condemns later finds it, whoever condemned before is noted in it.
            with database.read() as connection:
                known = KEEPS_ALL if relies_on_deletable else last_condemnation(connection)
            self._file.write_text(f"{known:<{_NUMBER_BYTES}}")
            if relies_on_deletable:
                database.wait_for_writer()  # a gc that has not seen the file may be deleting at this moment
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Take the sign away."""
        self._disk.remove(self._file.path)
        self._file.release()


@contextmanager
def keeping_all(layout: Layout, disk: Disk, database: Database) -> Iterator[None]:
    """Let nothing be deleted or evicted, whenever it was condemned, for the length of a ``with``."""
    mark = OpenPublication(layout, disk, database, relies_on_deletable=True)
    try:
        yield
    finally:
        mark.end()


def oldest_open(layout: Layout) -> int | None:
    """The last condemnation that every open publication knows of; None if nobody is publishing."""
    known = [_read(path) for path in layout.sessions.glob(f"{PREFIX}*")]
    return min((number for number in known if number is not None), default=None)


def wait_for_older(layout: Layout, number: int) -> int | None:
    """Let publications end that started before a condemnation, for a second at most. Returns as ``oldest_open``."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while (oldest := oldest_open(layout)) is not None and oldest < number and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return oldest


def _read(path: Path) -> int | None:
    """What a publication knows; 0 if it does not say so yet, None if it has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if try_flock(descriptor, shared=True):
            return None  # its process is gone
        text = os.pread(descriptor, 2 * _NUMBER_BYTES, 0).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    # Until it has noted the number, the file holds its process's.
    return int(text) if len(text) == _NUMBER_BYTES else 0


def last_condemnation(connection: sqlite3.Connection) -> int:
    """The number of the last condemnation; 0 before the first."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (LAST,)).fetchone()
    return int(row[0]) if row else 0


def next_deletion_number(connection: sqlite3.Connection, now: int) -> int:
    """Take a new number: the time, in seconds since 1970, unless that is not larger than the last one."""
    number = max(now, last_condemnation(connection) + 1)
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (LAST, str(number)),
    )
    return number
