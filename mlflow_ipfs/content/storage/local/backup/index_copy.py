"""The index of a copy of a store, before anybody opens the copy: a file that is nobody else's."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from mlflow_ipfs.content.storage.local.files.open_publications import LAST_DELETION_NUMBER
from mlflow_ipfs.content.storage.local.index.cache_rows import CHANGES
from mlflow_ipfs.content.storage.local.index.index_file import check_index, limit, reading_index_file, unreadable_index
from mlflow_ipfs.content.storage.local.index.schema import schema_version, stored_id
from mlflow_ipfs.errors import StoreFormatError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.index.index_rows import Stamp

_SAFE_NAME: Final = re.compile(r"(files/[0-9a-f]{2}|quarantine)/[^/\0]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class BackupFile:
    """An immutable file that an index names.

    Attributes:
        id: its row.
        name: its path below the store's directory.
        size_bytes: how large it is.
        mtime_ns: its time, as the index has it.
        is_damaged: whether a bad block was found in it.
    """

    id: int
    name: str
    size_bytes: int
    mtime_ns: int
    is_damaged: bool


class BackupIndex:
    """An index that is being made fit for its copy. Closed at the end of a ``with``; every change counts at once.

    Args:
        path: the file.

    Raises:
        StoreFormatError: the file is damaged, or no index that this version knows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> Self:
        # NullParticipant, so that SQLite needs no shared memory and no syncing: the file is synced as a whole when it is finished.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._connection.execute("PRAGMA synchronous = OFF")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            msg = f"the disk under {self._path} is full: there must be room there for a copy of the index"
            raise StoreFullError(msg) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise unreadable_index(self._path, error) from error

    def drop_unkept(self) -> None:
        """Forget the cache, and files that were being deleted when the copy was made: nobody needs or finds them."""
        unkept = "condemned_at < 0 OR class = 'cache'"
        self._connection.execute(f"DELETE FROM block WHERE place IN (SELECT id FROM place WHERE {unkept})")  # noqa: S608 - a fixed text
        self._connection.execute(f"DELETE FROM place WHERE {unkept}")  # noqa: S608 - a fixed text

    def list_files(self) -> list[BackupFile]:
        """Every file that the index names.

        Raises:
            StoreFormatError: a name would lead out of the store.
        """
        return _list_files(self._connection, self._path)

    def mark_damaged(self, cids: Iterable[CID]) -> None:
        """Let the files that these blocks, or objects, lie in count as absent for dedupe."""
        self._connection.executemany(
            "UPDATE place SET damaged = 1 WHERE root = ? OR id = (SELECT place FROM block WHERE multihash = ?)",
            ((cid.multihash, cid.multihash) for cid in cids),
        )

    def files_of(self, cids: Iterable[CID]) -> set[int]:
        """The rows of those files."""
        query = "SELECT id FROM place WHERE root = ? UNION SELECT place FROM block WHERE multihash = ? AND place IS NOT NULL"
        return {
            row[0] for cid in cids for row in self._connection.execute(query, (cid.multihash, cid.multihash)).fetchall()
        }

    def restamp(self, stamps: Iterable[tuple[int, Stamp]], unsure: Collection[int]) -> None:
        """Note what the copied files look like, so that nobody hashes them only because they are copies.

        Args:
            stamps: of each file, by row.
            unsure: rows of those that the original calls damaged, and nobody has looked at since.
        """
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "UPDATE place SET inode = ?, mtime_ns = ?, damaged = damaged AND ? WHERE id = ?",
            ((stamp.inode, stamp.mtime_ns, place_id in unsure, place_id) for place_id, stamp in stamps),
        )
        self._connection.execute("COMMIT")


def read_files(path: Path) -> list[BackupFile]:
    """The files that a finished index names, without writing anything beside it.

    Raises:
        StoreFormatError: the index can't be read.
    """
    with reading_index_file(path) as connection:
        return _list_files(connection, path)


def copy_index(source: Path, destination: Path) -> str:
    """Copy a finished index to a new file. Returns the store's id.

    Raises:
        StoreFormatError: it is damaged, of a newer format, or no program of ours has made it.
    """
    with reading_index_file(source) as connection:
        if schema_version(connection) == 0:
            msg = f"{source} has no tables of a store"
            raise StoreFormatError(msg)
        with closing(sqlite3.connect(destination, isolation_level=None)) as copy:
            limit(copy)
            connection.backup(copy)
            _drop_code(copy)
            check_index(copy, source)
            _drop_wrong_numbers(copy)
        return stored_id(connection)


def _drop_code(connection: sqlite3.Connection) -> None:
    """Remove triggers and views: those of a gc that was running, or of somebody who made the copy to do harm."""
    for kind in ("trigger", "view"):
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = ?", (kind,)).fetchall():
            quoted = name.replace('"', '""')
            connection.execute(f'DROP {kind} "{quoted}"')


def _drop_wrong_numbers(connection: sqlite3.Connection) -> None:
    """Let what counts gcs and the cache begin anew, unless it has a number: nobody relies on the former one in a copy."""
    connection.execute(
        "DELETE FROM meta WHERE key IN (?, ?) AND (length(value) NOT BETWEEN 1 AND 15 OR value GLOB '*[^0-9]*')",
        (LAST_DELETION_NUMBER, CHANGES),
    )


def _list_files(connection: sqlite3.Connection, path: Path) -> list[BackupFile]:
    rows = connection.execute(
        "SELECT id, CAST(name AS TEXT), CAST(size AS INTEGER), CAST(mtime_ns AS INTEGER), coalesce(damaged, 0)"
        " FROM place ORDER BY id"
    )
    files = [BackupFile(row[0], row[1] or "", row[2], row[3], bool(row[4])) for row in rows]
    for file in files:
        if not _SAFE_NAME.fullmatch(file.name) or file.name.endswith(("/.", "/..")):
            msg = f"the index {path} names a file {file.name!r}, which is no place of a store; it was made by somebody else"
            raise StoreFormatError(msg)
    return files
