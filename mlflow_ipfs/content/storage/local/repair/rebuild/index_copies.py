"""Copies of a store's index: ``store.db`` itself, those that an earlier rebuild moved to ``quarantine``, and backups.

For each table, the copies are used newest first, up to the first copy in which the table is undamaged. Rows that only
older copies have were removed on purpose. A damaged table is read from both ends up to the first damaged page.
"""

from __future__ import annotations

import calendar
import re
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.storage.local.index import schema
from mlflow_ipfs.content.storage.local.index.index_file import open_index_file
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.storage.local.repair.index_backups import list_backups
from mlflow_ipfs.content.storage.local.repair.rebuild.report import IndexCopyUse
from mlflow_ipfs.errors import StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout

QUARANTINED: Final = "index-*"  # directories below ``quarantine``, each with the files of one index
_DAMAGED_VERSION: Final = 1000  # a version number from here on is damage, not a newer program
_STAMP: Final = re.compile(r"\d{8}T\d{6}Z")
_STAMP_FORMAT: Final = "%Y%m%dT%H%M%SZ"


class IndexCopy:
    """Copy of the index, opened for reading.

    Args:
        path: the database. If it has a log, the log is in the same directory.
        made_at: when its state was current, in seconds since 1970; None for ``store.db`` itself.

    Attributes:
        store_id: the store that the copy belongs to; None if its ``meta`` table is damaged.
        damaged: the tables in which damage was found so far.
        names: how many names the rebuild copied from it.
        blocks: how many small blocks the rebuild copied from it.

    Raises:
        sqlite3.DatabaseError: the file is not a database, or its first page is damaged.
        StoreFormatError: a newer version of this program wrote it.
        ValueError: it does not have the tables of a store.
    """

    def __init__(self, path: Path, made_at: int | None) -> None:
        self.path = path
        self.made_at = made_at
        self.names = self.blocks = 0
        self.damaged = set[str]()
        self._whole = set[str]()
        self._connection = open_index_file(path)
        try:
            self._check_version()
            self.meta = {row["key"]: row["value"] for row in self.rows("meta", ("key",))}
        except BaseException:
            self.close()
            raise
        self.store_id: str | None = self.meta.get("store_id")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _check_version(self) -> None:
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('block', 'place', 'pin')")
        if tables.fetchone()[0] == 0:
            msg = "it does not have the tables of a store"
            raise ValueError(msg)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if schema.SCHEMA_VERSION < version < _DAMAGED_VERSION:
            msg = f"{self.path} has schema version {version}, newer than {schema.SCHEMA_VERSION}: upgrade mlflow-ipfs"
            raise StoreFormatError(msg)

    def is_whole(self, table: str) -> bool:
        """Return whether a table is undamaged."""
        if table not in self.damaged | self._whole:
            try:
                is_whole = self._connection.execute(f"PRAGMA quick_check({table})").fetchall() == [("ok",)]
            except sqlite3.DatabaseError:
                is_whole = False
            (self._whole if is_whole else self.damaged).add(table)
        return table not in self.damaged

    def rows(self, table: str, key: tuple[str, ...], where: str = "TRUE") -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, unverified. Rows of a damaged table may be missing or come twice."""
        try:
            yield from read_rows(self._connection, f"{table} WHERE {where} ORDER BY {', '.join(key)}")
        except sqlite3.DatabaseError:
            self.damaged.add(table)
            backwards = ", ".join(f"{column} DESC" for column in key)
            with suppress(sqlite3.DatabaseError):
                yield from read_rows(self._connection, f"{table} WHERE {where} ORDER BY {backwards}")

    def inline_blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield multihash and bytes, unverified, of each block stored in the index itself."""
        for row in self.rows("block", ("id",), "data IS NOT NULL"):
            if isinstance(row["multihash"], bytes) and isinstance(row["data"], bytes):
                yield row["multihash"], row["data"]

    def knows(self, multihash: bytes) -> bool:
        """Return whether the copy has a row for a block."""
        row = self._connection.execute("SELECT 1 FROM block WHERE multihash = ?", (multihash,)).fetchone()
        return row is not None

    def blocks_of(self, name: str) -> list[NewBlock]:
        """Return the rows of the blocks in a file, in order of offset, unverified. Return none if they are damaged."""
        query = (
            "SELECT b.multihash, b.offset, b.length, b.form FROM place p JOIN block b ON b.place = p.id"
            " WHERE p.name = ? AND typeof(b.multihash) = 'blob' AND b.offset >= 0 AND b.length >= 0 AND b.form >= 0"
            " ORDER BY b.offset"
        )
        with suppress(sqlite3.DatabaseError):
            return [NewBlock(row[0], None, *row[1:]) for row in self._connection.execute(query, (name,))]
        return []

    def chunk_sizes(self) -> list[int]:
        """Return the lengths of the first leaves of all objects: the chunk sizes of their files."""
        query = (
            "SELECT DISTINCT b.length FROM place p JOIN block b ON b.place = p.id AND b.offset = 0"
            " WHERE p.kind = 'object' AND p.size > b.length"
        )
        with suppress(sqlite3.DatabaseError):
            return [row[0] for row in self._connection.execute(query) if isinstance(row[0], int)]
        return []


def read_rows(connection: sqlite3.Connection, source: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, each as a dict by column name."""
    cursor = connection.execute(f"SELECT * FROM {source}")  # noqa: S608 - fixed names
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(columns, row, strict=True))


@dataclass(slots=True)
class IndexCopies:
    """Copies of the index that a rebuild found.

    Attributes:
        store_id: the store's id, if it is known.
        used: the copies that can be read, newest first.
        unusable: the copies that cannot be read or belong to another store.
    """

    store_id: str | None
    used: list[IndexCopy] = field(default_factory=list)
    unusable: list[IndexCopyUse] = field(default_factory=list)

    def has_all_names(self) -> bool:
        """Return whether ``store.db`` itself exists, with undamaged tables of names."""
        return any(
            copy.made_at is None and all(copy.is_whole(table.table) for table in NAME_TABLES) for copy in self.used[:1]
        )

    def close(self) -> None:
        """Close every copy."""
        for copy in self.used:
            copy.close()

    def blocks_of(self, name: str) -> list[NewBlock]:
        """Return ``IndexCopy.blocks_of`` of the newest copy that has blocks in a file."""
        return next((blocks for copy in self.used if (blocks := copy.blocks_of(name))), [])

    def uses(self) -> tuple[IndexCopyUse, ...]:
        """Return what the rebuild copied from each copy of the index."""
        used = [
            IndexCopyUse(copy.path, "damaged" if copy.damaged else "whole", copy.made_at, copy.names, copy.blocks)
            for copy in self.used
        ]
        return (*used, *self.unusable)


def open_index_copies(layout: Layout, store_id: str | None) -> IndexCopies:
    """Open every copy that can be opened.

    Args:
        layout: the store.
        store_id: the store's id. If it is None, the id in the newest copy that has one is used.

    Raises:
        StoreFormatError: a newer version of this program wrote a copy.
    """
    copies = IndexCopies(store_id)
    for path, made_at in _list_copies(layout):
        try:
            copy = IndexCopy(path, made_at)
        except (sqlite3.DatabaseError, ValueError) as error:
            copies.unusable.append(IndexCopyUse(path, f"unusable: {error}", made_at))
            continue
        copies.store_id = copies.store_id or copy.store_id
        if copy.store_id not in (None, copies.store_id):
            copy.close()
            copies.unusable.append(IndexCopyUse(path, f"unusable: it belongs to the store {copy.store_id}", made_at))
        else:
            copies.used.append(copy)
    return copies


def _list_copies(layout: Layout) -> list[tuple[Path, int | None]]:
    """List ``store.db``, then the other copies with the time at which each was current, newest first."""
    # A rebuild makes a backup of the new index and quarantines the old one in the same second: the backup is newer.
    others = [(_time_in(path.name), 1, path) for path in list_backups(layout)]
    quarantined = layout.quarantine.glob(QUARANTINED)
    others += [(_time_in(directory.name), 0, directory / layout.database.name) for directory in quarantined]
    paths = [(layout.database, None), *((path, time_) for time_, _, path in sorted(others, reverse=True))]
    return [(path, time_) for path, time_ in paths if path.is_file()]


def _time_in(name: str) -> int:
    """Return the time in the name of a backup or of a quarantined index; 0 if it was renamed."""
    found = _STAMP.search(name)
    try:
        return calendar.timegm(time.strptime(found.group(), _STAMP_FORMAT)) if found else 0
    except ValueError:
        return 0
