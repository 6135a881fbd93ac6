"""Objects: files of the store that hold the bytes of one file contiguously, to be read without copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.content.storage.local.files.block_reading import StoredBlock, read_stored_block
from mlflow_ipfs.content.storage.local.files.drafts import Draft
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import Leaf
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.system.disk import Disk

DEDUPE_BYTES: Final = 64 << 20  # smaller files are stored whole: reading them without a copy is worth more
_WRITEBACK_BYTES: Final = 32 << 20  # the disk writes this much while the next bytes are read and hashed


def find_new_leaves(
    connection: sqlite3.Connection, leaves: Sequence[NewBlock], size_bytes: int
) -> list[NewBlock] | None:
    """Return the leaves of a large file that the store lacks, each once; None if it has less than half of the file."""
    if size_bytes < DEDUPE_BYTES:
        return None
    known = index_rows.known_among(connection, {leaf.multihash for leaf in leaves})
    missing = [leaf for leaf in leaves if leaf.multihash not in known]
    if 2 * sum(leaf.length for leaf in missing) > size_bytes:
        return None
    return list({leaf.multihash: leaf for leaf in missing}.values())


def move_leaves(disk: Disk, draft: Draft, leaves: Iterable[NewBlock], put: Callable[[CID, bytes], None]) -> None:
    """Pass leaves of a draft to ``put`` as blocks. The caller still owns the draft."""
    descriptor = disk.open_to_read(draft.path)
    try:
        for leaf in leaves:
            stored = StoredBlock(0, leaf.multihash, leaf.offset, leaf.length, leaf.form)
            put(*read_stored_block(disk, descriptor, stored))
    finally:
        disk.close(descriptor)


class ObjectWriter:
    """The writer of one object.

    Args:
        disk: writes the draft.
        draft: the path of the new file.
        directory: the store's directory, for error messages.
        on_finish: called with the root's multihash, the rows of the leaves, the size in bytes and the draft.
    """

    def __init__(
        self,
        disk: Disk,
        draft: Path,
        directory: Path,
        on_finish: Callable[[bytes, list[NewBlock], int, Draft], None],
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._on_finish = on_finish
        self._size_bytes = 0
        self._writeback_end = 0  # up to here, the disk was told to write
        self._draft: Draft | None = Draft(draft, disk.create(draft))
        self._read_descriptor: int | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes to the file."""
        draft = self._open_draft()
        with translate_disk_errors(self._directory):
            self._disk.write(draft.descriptor, data)
            self._size_bytes += len(data)
            unwritten = self._size_bytes - self._writeback_end
            if unwritten >= _WRITEBACK_BYTES:
                self._disk.start_writeback(draft.descriptor, self._writeback_end, unwritten)
                self._writeback_end = self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        draft = self._open_draft()
        if self._read_descriptor is None:
            self._read_descriptor = self._disk.open_to_read(draft.path)
        return self._disk.read_at(self._read_descriptor, offset, length)

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Name the file by its root, and state its leaves.

        Raises:
            InvalidDataError: the leaves do not cover the written bytes without gaps and in order, or one is too large.
        """
        draft = self._open_draft()
        rows: list[NewBlock] = []
        end = 0
        for leaf in leaves:
            if leaf.offset != end or leaf.length > MAX_LEAF_BYTES:
                msg = (
                    f"the file {root} has a leaf of {leaf.length} bytes at offset {leaf.offset}; expected a leaf at offset "
                    f"{end}, of at most {MAX_LEAF_BYTES} bytes"
                )
                raise InvalidDataError(msg)
            end += leaf.length
            if leaf.cid.identity_data is None:
                rows.append(NewBlock(leaf.cid.multihash, None, leaf.offset, leaf.length, int(leaf.form)))
        if end != self._size_bytes:
            msg = f"the leaves of the file {root} cover {end} bytes, but {self._size_bytes} bytes were written"
            raise InvalidDataError(msg)
        self._stop_reading()
        with translate_disk_errors(self._directory):
            self._on_finish(root.multihash, rows, end, draft)
        self._draft = None

    def discard(self) -> None:
        """Delete what was written. A no-op after ``finish``."""
        self._stop_reading()
        draft, self._draft = self._draft, None
        if draft is not None:
            self._disk.close(draft.descriptor)
            self._disk.remove(draft.path)

    def _stop_reading(self) -> None:
        descriptor, self._read_descriptor = self._read_descriptor, None
        if descriptor is not None:
            self._disk.close(descriptor)

    def _open_draft(self) -> Draft:
        if self._draft is None:
            msg = "the file is finished or discarded"
            raise ValueError(msg)
        return self._draft
