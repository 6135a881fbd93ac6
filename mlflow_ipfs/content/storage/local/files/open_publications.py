"""Marker files of open publications, which gc reads before it deletes anything.

A publication relies on blocks that it found in the store until it has given them a name. Gc therefore deletes a file in
two steps. First it records the file as *deletable*: publications that start later do not rely on the file. It deletes
the file only when every publication that started earlier has ended.

"Earlier" is counted in deletion numbers instead of seconds, because clocks can be set back. Gc records each group of
deletable files with a deletion number that is larger than all previous ones. A publication records the last deletion
number that it knows.
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

PUBLICATION_PREFIX: Final = "publication-"
KEEPS_ALL: Final = -1  # instead of a number, for a publication that relies on deletable or cached files too
LAST_DELETION_NUMBER: Final = "last_condemnation"
_NUMBER_BYTES: Final = 40
_WAIT_SECONDS: Final = 1.0  # enough for small publications; a long upload is left to the next gc
_POLL_SECONDS: Final = 0.02


class OpenPublication:
    """Marker file of an open publication. The file is locked, and the lock ends with the process.

    Args:
        layout: the paths of the store.
        disk: removes the file.
        database: the index, which has the last deletion number.
        relies_on_deletable: gc must delete nothing, not even files that are deletable already. For callers that copy
            the store or name content which already exists in it.

    Raises:
        StoreFullError: the disk has no space for the file.
    """

    def __init__(self, layout: Layout, disk: Disk, database: Database, *, relies_on_deletable: bool = False) -> None:
        self._disk = disk
        self._file = lock_new(layout, PUBLICATION_PREFIX)
        try:
            # Read after the file exists: this read sees earlier numbers, and a gc with a later number finds the file.
            with database.read() as connection:
                known = KEEPS_ALL if relies_on_deletable else last_deletion_number(connection)
            self._file.write_text(f"{known:<{_NUMBER_BYTES}}")
            if relies_on_deletable:
                database.wait_for_writer()  # a gc that has not seen the file may be deleting now
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Remove the marker file."""
        self._disk.remove(self._file.path)
        self._file.release()


@contextmanager
def keeping_all(layout: Layout, disk: Disk, database: Database) -> Iterator[None]:
    """Keep gc from deleting or evicting anything for the length of a ``with``, not even deletable files."""
    publication = OpenPublication(layout, disk, database, relies_on_deletable=True)
    try:
        yield
    finally:
        publication.end()


def oldest_open(layout: Layout) -> int | None:
    """Return the last deletion number that every open publication knows; None without open publications."""
    known = [_read(path) for path in layout.sessions.glob(f"{PUBLICATION_PREFIX}*")]
    return min((number for number in known if number is not None), default=None)


def wait_for_older(layout: Layout, number: int) -> int | None:
    """Wait at most one second until all publications that started before a deletion number have ended.

    Returns:
        The same as ``oldest_open``.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while (oldest := oldest_open(layout)) is not None and oldest < number and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return oldest


def _read(path: Path) -> int | None:
    """Return the number that a publication knows; 0 if it is not recorded yet, None if the publication has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if try_flock(descriptor, shared=True):
            return None  # its process has ended
        text = os.pread(descriptor, 2 * _NUMBER_BYTES, 0).decode("ascii", "replace")
    finally:
        os.close(descriptor)
    # Before the deletion number is written, the file holds the process id, which is shorter.
    return int(text) if len(text) == _NUMBER_BYTES else 0


def last_deletion_number(connection: sqlite3.Connection) -> int:
    """Return the last deletion number; 0 before the first."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (LAST_DELETION_NUMBER,)).fetchone()
    return int(row[0]) if row else 0


def next_deletion_number(connection: sqlite3.Connection, now: int) -> int:
    """Take a new deletion number: the time in seconds since 1970, or the last number plus 1 if that is larger."""
    number = max(now, last_deletion_number(connection) + 1)
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (LAST_DELETION_NUMBER, str(number)),
    )
    return number
