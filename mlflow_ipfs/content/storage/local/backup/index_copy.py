"""Index of a store copy: a file that no other program opens until the copy is finished."""

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
    """Immutable file in an index.

    Attributes:
        id: its row in ``place``.
        name: its path below the store's directory.
        size_bytes: its size.
        mtime_ns: its mtime, as recorded in the index.
        is_damaged: whether a damaged block was found in it.
    """

    id: int
    name: str
    size_bytes: int
    mtime_ns: int
    is_damaged: bool


class BackupIndex:
    """Copied index that is adapted to the store copy. Each change is committed at once; a ``with`` closes the file.

    Args:
        path: the file.

    Raises:
        StoreFormatError: the file is damaged, or is not an index that this version can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> Self:
        # No other program opens the file, so SQLite needs neither shared memory nor syncing. The caller syncs the
        # finished file.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._connection.execute("PRAGMA synchronous = OFF")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            msg = f"the disk with {self._path.parent} is full: free enough space for a copy of the index"
            raise StoreFullError(msg) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise unreadable_index(self._path, error) from error

    def drop_unkept(self) -> None:
        """Remove the rows of the cache, which a copy does not need, and of files that gc was deleting."""
        unkept = "condemned_at < 0 OR class = 'cache'"
        self._connection.execute(f"DELETE FROM block WHERE place IN (SELECT id FROM place WHERE {unkept})")  # noqa: S608 - a fixed text
        self._connection.execute(f"DELETE FROM place WHERE {unkept}")  # noqa: S608 - a fixed text

    def list_files(self) -> list[BackupFile]:
        """Return every file in the index.

        Raises:
            StoreFormatError: a name is not a path that a store uses.
        """
        return _list_files(self._connection, self._path)

    def mark_damaged(self, cids: Iterable[CID]) -> None:
        """Make the files with these blocks or objects count as absent for dedupe."""
        self._connection.executemany(
            "UPDATE place SET damaged = 1 WHERE root = ? OR id = (SELECT place FROM block WHERE multihash = ?)",
            ((cid.multihash, cid.multihash) for cid in cids),
        )

    def files_of(self, cids: Iterable[CID]) -> set[int]:
        """Return the rows of the files with these blocks or objects."""
        query = "SELECT id FROM place WHERE root = ? UNION SELECT place FROM block WHERE multihash = ? AND place IS NOT NULL"
        return {
            row[0] for cid in cids for row in self._connection.execute(query, (cid.multihash, cid.multihash)).fetchall()
        }

    def restamp(self, stamps: Iterable[tuple[int, Stamp]], unsure: Collection[int]) -> None:
        """Record the stamps of the copied files: otherwise a reader would hash each file, because its stamp differs.

        Args:
            stamps: the stamp of each file, by row.
            unsure: rows of files that the original index calls damaged, and that were not checked since.
        """
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "UPDATE place SET inode = ?, mtime_ns = ?, damaged = damaged AND ? WHERE id = ?",
            ((stamp.inode, stamp.mtime_ns, place_id in unsure, place_id) for place_id, stamp in stamps),
        )
        self._connection.execute("COMMIT")


def read_files(path: Path) -> list[BackupFile]:
    """Return the files in a finished index. Create no file next to it.

    Raises:
        StoreFormatError: the index cannot be read.
    """
    with reading_index_file(path) as connection:
        return _list_files(connection, path)


def copy_index(source: Path, destination: Path) -> str:
    """Copy a finished index to a new file. Return the store's id.

    Raises:
        StoreFormatError: the index is damaged, of a newer format, or was not made by this package.
    """
    with reading_index_file(source) as connection:
        if schema_version(connection) == 0:
            msg = f"{source} does not have the tables of a store: use another backup"
            raise StoreFormatError(msg)
        with closing(sqlite3.connect(destination, isolation_level=None)) as copy:
            limit(copy)
            connection.backup(copy)
            _drop_code(copy)
            check_index(copy, source)
            _drop_wrong_numbers(copy)
        return stored_id(connection)


def _drop_code(connection: sqlite3.Connection) -> None:
    """Remove triggers and views: those of a running gc, or those of an attacker who prepared the backup."""
    for kind in ("trigger", "view"):
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = ?", (kind,)).fetchall():
            quoted = name.replace('"', '""')
            connection.execute(f'DROP {kind} "{quoted}"')


def _drop_wrong_numbers(connection: sqlite3.Connection) -> None:
    """Remove counters of gcs and of the cache that are not numbers. A new copy can restart them at zero."""
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
            msg = (
                f"the index {path} names a file {file.name!r}, which is not a path that a store uses: the index is "
                "damaged or was changed by another program. Use another backup"
            )
            raise StoreFormatError(msg)
    return files
