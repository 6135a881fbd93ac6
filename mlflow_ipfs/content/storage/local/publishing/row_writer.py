"""Rows of a publication, written in transactions of limited length: the names and the roots come last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.cache_rows import record_cache_change
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock, Stamp

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

ROWS_PER_TRANSACTION: Final = 10_000  # a few tens of ms, for which all other writers wait


@dataclass(slots=True)
class NewFile:
    """A durable file of this publication, and what is in it.

    Attributes:
        kind: ``index_rows.OBJECT`` or ``index_rows.PACK``.
        name: its path below the store's directory.
        root: for an object, the multihash of its root.
        rows: its blocks, in the order in which they were put: what links to a block comes after it.
        stamp: its stamp.
        place_id: its row, once it has one.
        used: whether any block row came to point to it.
    """

    kind: str
    name: str
    root: bytes | None
    rows: list[NewBlock]
    stamp: Stamp
    place_id: int | None = None
    used: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into one transaction."""

    parts: list[tuple[NewFile, list[NewBlock]]] = field(default_factory=list)


def batches(files: list[NewFile]) -> Iterator[Batch]:
    """Cut the rows of all files into batches, in order."""
    batch, room = Batch(), ROWS_PER_TRANSACTION
    for file in files:
        start = 0
        while True:
            piece = file.rows[start : start + room]
            batch.parts.append((file, piece))
            start += len(piece)
            room -= len(piece) + 1  # the file's own row counts, too
            if room <= 0:
                yield batch
                batch, room = Batch(), ROWS_PER_TRANSACTION
            if start >= len(file.rows):
                break
    yield batch


class RowWriter:
    """Writes batches, and decides for each file whether the store needs it.

    Args:
        layout: where the store is.
        disk: looks at files that are there already.
        class_: of the files to be, ``index_rows.OWNED`` or ``index_rows.CACHE``.

    Attributes:
        superfluous: files that turned out to be in the store already.
    """

    def __init__(self, layout: Layout, disk: Disk, class_: str) -> None:
        self._layout = layout
        self._disk = disk
        self._class = class_
        self.superfluous: list[NewFile] = []

    def write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Write one batch inside the caller's transaction."""
        if self._class == index_rows.CACHE and batch.parts:
            record_cache_change(connection)
        for file, rows in batch.parts:
            if file.place_id is None:
                file.place_id = self._insert_place(connection, file)
            elif self._class == index_rows.CACHE and not _is_still_there(connection, file):
                continue  # evicted since the batch before
            if file.kind == index_rows.OBJECT and self._class == index_rows.OWNED:
                index_rows.insert_leaves(connection, file.place_id, rows)
            else:
                file.used |= index_rows.insert_blocks(connection, file.place_id, rows, self._class) > 0

    def _insert_place(self, connection: sqlite3.Connection, file: NewFile) -> int:
        if file.root is not None:
            place = find_sound_object(
                connection, self._layout, self._disk, file.root, size_bytes=file.stamp.size_bytes, class_=self._class
            )
            if place is not None:  # another process published the same file at the same time
                self.superfluous.append(file)
                return place
            index_rows.retire_object(connection, file.root)
        return index_rows.insert_place(connection, file.kind, file.name, file.stamp, file.root, class_=self._class)

    def drop_unused_packs(self, connection: sqlite3.Connection, files: list[NewFile]) -> None:
        """In the last transaction: forget packs of which every block was in the store already."""
        for file in files:
            if file.kind == index_rows.PACK and not file.used:
                connection.execute("DELETE FROM place WHERE id = ?", (file.place_id,))
                self.superfluous.append(file)


def _is_still_there(connection: sqlite3.Connection, file: NewFile) -> bool:
    """Whether the row of a file, or of the object that was there in its place, is what it was."""
    row = connection.execute(
        "SELECT 1 FROM place WHERE id = ? AND (name = ? OR root = ?) AND condemned_at IS NULL",
        (file.place_id, file.name, file.root),
    ).fetchone()
    return row is not None


def find_sound_object(
    connection: sqlite3.Connection, layout: Layout, disk: Disk, root: bytes, *, size_bytes: int, class_: str
) -> int | None:
    """The row of the object of a root, if its file is there and as the index has it, and is kept as ``class_`` is."""
    place = index_rows.find_object(connection, root)
    if place is None or place.is_damaged or place.is_deletable or place.stamp.size_bytes != size_bytes:
        return None
    if place.cache_used is not None and class_ == index_rows.OWNED:
        return None
    try:
        status = disk.status(layout.directory / place.name)
    except FileNotFoundError:
        return None
    return place.id if Stamp.of(status) == place.stamp else None
