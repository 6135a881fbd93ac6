"""Writing the rows of a publication, in transactions of limited length. Roots and names come last."""

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

ROWS_PER_TRANSACTION: Final = 10_000  # all other writers wait for such a transaction, a few tens of ms


@dataclass(slots=True)
class NewFile:
    """A durable file of this publication, with its blocks.

    Attributes:
        kind: ``index_rows.OBJECT`` or ``index_rows.PACK``.
        name: its path, relative to the store's directory.
        root: for an object, the multihash of its root.
        rows: its blocks, in the order in which they were put: a node comes after the blocks that it links to.
        stamp: the stamp of the file.
        place_id: the id of its row; None before the row is written.
        used: whether a row of a block refers to the file.
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
    """The rows that one transaction writes."""

    parts: list[tuple[NewFile, list[NewBlock]]] = field(default_factory=list)


def batches(files: list[NewFile]) -> Iterator[Batch]:
    """Yield the rows of all files in batches, in order."""
    batch, capacity = Batch(), ROWS_PER_TRANSACTION
    for file in files:
        start = 0
        while True:
            piece = file.rows[start : start + capacity]
            batch.parts.append((file, piece))
            start += len(piece)
            capacity -= len(piece) + 1  # plus the row of the file
            if capacity <= 0:
                yield batch
                batch, capacity = Batch(), ROWS_PER_TRANSACTION
            if start >= len(file.rows):
                break
    yield batch


class RowWriter:
    """The writer of batches. For each file, it decides whether the store needs it.

    Args:
        layout: the paths of the store.
        disk: reads the status of existing files.
        class_: the class of the new files, ``index_rows.OWNED`` or ``index_rows.CACHE``.

    Attributes:
        redundant: files whose content was in the store already; the caller removes them.
    """

    def __init__(self, layout: Layout, disk: Disk, class_: str) -> None:
        self._layout = layout
        self._disk = disk
        self._class = class_
        self.redundant: list[NewFile] = []

    def write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Write one batch in the transaction of the caller."""
        if self._class == index_rows.CACHE and batch.parts:
            record_cache_change(connection)
        for file, rows in batch.parts:
            if file.place_id is None:
                file.place_id = self._insert_place(connection, file)
            elif self._class == index_rows.CACHE and not _has_row(connection, file):
                continue  # evicted since the previous batch
            if file.kind == index_rows.OBJECT and self._class == index_rows.OWNED:
                index_rows.insert_leaves(connection, file.place_id, rows)
            else:
                file.used |= index_rows.insert_blocks(connection, file.place_id, rows, self._class) > 0

    def _insert_place(self, connection: sqlite3.Connection, file: NewFile) -> int:
        """Insert the row of a file, or find the row of an object with the same content. Return its id."""
        if file.root is not None:
            place_id = find_intact_object(
                connection, self._layout, self._disk, file.root, size_bytes=file.stamp.size_bytes, class_=self._class
            )
            if place_id is not None:  # another process published the same file at the same time
                self.redundant.append(file)
                return place_id
            index_rows.retire_object(connection, file.root)
        return index_rows.insert_place(connection, file.kind, file.name, file.stamp, file.root, class_=self._class)

    def drop_unused_packs(self, connection: sqlite3.Connection, files: list[NewFile]) -> None:
        """In the last transaction, delete the rows of packs whose blocks were all in the store already."""
        for file in files:
            if file.kind == index_rows.PACK and not file.used:
                connection.execute("DELETE FROM place WHERE id = ?", (file.place_id,))
                self.redundant.append(file)


def _has_row(connection: sqlite3.Connection, file: NewFile) -> bool:
    """Return whether the row of a file, or of the existing object that replaced it, is still in use."""
    row = connection.execute(
        "SELECT 1 FROM place WHERE id = ? AND (name = ? OR root = ?) AND condemned_at IS NULL",
        (file.place_id, file.name, file.root),
    ).fetchone()
    return row is not None


def find_intact_object(
    connection: sqlite3.Connection, layout: Layout, disk: Disk, root: bytes, *, size_bytes: int, class_: str
) -> int | None:
    """Return the id of the object of a root, if a publication of a class can rely on it.

    Its file must exist with the recorded stamp, undamaged and not deletable. If the class is ``index_rows.OWNED``, a
    cached object does not count.
    """
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
