"""What is left of an index: read without changing it, as far as it can be read."""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.blockstore.local import schema
from mlflow_ipfs.content.blockstore.local.backups import list_backups
from mlflow_ipfs.content.blockstore.local.index import NewBlock
from mlflow_ipfs.content.blockstore.local.index_file import open_index_file
from mlflow_ipfs.errors import StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.local.layout import Layout

SET_ASIDE: Final = "index-*"  # folders below ``quarantine``, each with the files of one index
_IMPOSSIBLE_VERSION: Final = 1000  # from here on it is damage
_STAMP: Final = re.compile(r"\d{8}T\d{6}Z")


class OldIndex:
    """An index that may be damaged, opened for reading.

    Args:
        path: the database; its log, if there is one, lies beside it.

    Attributes:
        path: the same.
        store_id: the store that it says it belongs to; None if that can't be read.
        is_damaged: whether any of its tables could not be read to the end so far.
        names: how many names were taken from it, for the report.
        blocks: how many inline blocks were taken from it.

    Raises:
        sqlite3.DatabaseError: it is no database, or its beginning is damaged.
        StoreFormatError: it is of a newer version of this program.
        ValueError: it has no tables.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_damaged = False
        self.names = self.blocks = 0
        self._connection = open_index_file(path)
        try:
            self._check_version()
            self.meta = dict(self._meta())
        except BaseException:
            self.close()
            raise
        self.store_id = self.meta.get("store_id")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _check_version(self) -> None:
        """Not as strict as for an index that is opened for use: bytes of its head may be damaged."""
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('block', 'place', 'pin')")
        if tables.fetchone()[0] == 0:
            msg = "it has no tables of a store"
            raise ValueError(msg)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if schema.SCHEMA_VERSION < version < _IMPOSSIBLE_VERSION:
            msg = f"{self.path} has schema version {version}, newer than {schema.SCHEMA_VERSION}: upgrade mlflow-ipfs"
            raise StoreFormatError(msg)

    def _meta(self) -> Iterator[tuple[str, str]]:
        for key, value in self.rows("meta", ("key", "value"), ("key",)):
            if isinstance(key, str) and isinstance(value, str):
                yield key, value

    def rows(self, table: str, columns: Sequence[str], key: Sequence[str], where: str = "1") -> Iterator[Sequence[Any]]:
        """Rows from the front as far as they can be read, and if that is not to the end, from the back, too.

        Some rows may come twice.
        """
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE {where} ORDER BY "  # noqa: S608 - fixed names
        try:
            yield from self._connection.execute(query + ", ".join(key))
        except sqlite3.DatabaseError:
            self.is_damaged = True
            with suppress(sqlite3.DatabaseError):
                yield from self._connection.execute(query + ", ".join(f"{column} DESC" for column in key))

    def is_whole(self, table: str) -> bool:
        """Whether SQLite finds nothing wrong in a table."""
        try:
            whole = self._connection.execute(f"PRAGMA quick_check({table})").fetchall() == [("ok",)]
        except sqlite3.DatabaseError:
            whole = False
        self.is_damaged |= not whole
        return whole

    def knows(self, multihash: bytes) -> bool:
        """Whether it has a row for a block."""
        try:
            row = self._connection.execute("SELECT 1 FROM block WHERE multihash = ?", (multihash,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return row is not None

    def inline_blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """Multihash and bytes of each block that lies in the index itself. Unverified."""
        for multihash, data in self.rows("block", ("multihash", "data"), ("id",), "data IS NOT NULL"):
            if isinstance(multihash, bytes) and isinstance(data, bytes):
                yield multihash, data

    def blocks_of(self, name: str) -> Iterator[NewBlock]:
        """Where the index has blocks in a file. Unverified."""
        query = (
            "SELECT b.multihash, b.offset, b.length, b.form FROM place p JOIN block b ON b.place = p.id"
            " WHERE p.name = ? ORDER BY b.offset"
        )
        with suppress(sqlite3.DatabaseError):
            for multihash, offset, length, form in self._connection.execute(query, (name,)):
                if isinstance(multihash, bytes) and all(isinstance(n, int) and n >= 0 for n in (offset, length, form)):
                    yield NewBlock(multihash, None, offset, length, form)

    def cut_sizes(self) -> set[int]:
        """Lengths of the first leaves of objects: the sizes that files were cut into."""
        query = (
            "SELECT DISTINCT b.length FROM place p JOIN block b ON b.place = p.id AND b.offset = 0"
            " WHERE p.kind = 'object' AND p.size > b.length"
        )
        found: set[int] = set()
        with suppress(sqlite3.DatabaseError):
            found.update(row[0] for row in self._connection.execute(query) if isinstance(row[0], int))
        return found


def list_old_indexes(layout: Layout) -> list[Path]:
    """The store's own index, then those that were set aside and the backups, newest first."""
    set_aside = [folder / layout.database.name for folder in layout.quarantine.glob(SET_ASIDE)]
    # Of one second: a backup shows the state after a rebuild, what the rebuild set aside the one before.
    others = [(_stamp(path.name), 1, path) for path in list_backups(layout)]
    others += [(_stamp(path.parent.name), 0, path) for path in set_aside]
    paths = [layout.database, *(path for _, _, path in sorted(others, reverse=True))]
    return [path for path in paths if path.is_file()]


def _stamp(name: str) -> str:
    found = _STAMP.search(name)
    return found.group() if found else ""
