"""File of a store, opened for a scan of all its bytes."""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.codecs.unixfs import block_of_leaf
from mlflow_ipfs.content.storage.local.index.index_rows import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
    from mlflow_ipfs.content.system.disk import Disk

_WINDOW_BYTES: Final = 1 << 20


class FileView:
    """Reader of one file.

    Args:
        disk: performs every operation.
        path: the file.
        progress: called with the number of bytes of each read.

    Attributes:
        stamp: the file's stamp when it was opened.
        size_bytes: the file's size.
    """

    def __init__(self, disk: Disk, path: Path, progress: Callable[[int], None]) -> None:
        self._disk = disk
        self._path = path
        self._progress = progress
        status = disk.status(path)
        self.stamp = Stamp.of(status)
        self.size_bytes = status.st_size
        self._is_sealed = not stat.S_IMODE(status.st_mode) & 0o222
        self._descriptor = disk.open_to_read(path)
        self._start, self._window = 0, b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.close(self._descriptor)

    def make_durable(self) -> None:
        """Make the file read-only and sync it, because its publisher may have been killed before these steps."""
        if not self._is_sealed:
            with suppress(OSError):  # the file system may not support modes, and the hash is what counts
                self._disk.make_read_only(self._path)
        self._disk.sync(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Return a piece of the file; shorter where the file ends, empty on a bad sector. Safe in several threads."""
        self._progress(length)
        return self._disk.read_at_or_empty(self._descriptor, offset, length)

    def peek(self, offset: int, length: int) -> bytes:
        """Return a piece from a buffered window of the file. Use it for many small pieces, in one thread."""
        start = offset - self._start
        if start < 0 or start + length > len(self._window):
            self._start, start = offset, 0
            self._window = self.read(offset, max(length, _WINDOW_BYTES)) or self.read(offset, length)
        return self._window[start : start + length]

    def holds(self, row: NewBlock) -> bool:
        """Return whether a block is stored at the offset in its row."""
        piece = self.read(row.offset, row.length)
        block = block_of_leaf(piece, row.form)
        return CID(1, RAW, row.multihash).matches(block)

    def cuts(self, chunker: Chunker) -> Iterator[int]:
        """Yield the end offset of each chunk that a chunker makes. Stop at a bad sector."""
        with suppress(OSError), self._path.open("rb") as file:
            yield from chunker.cuts(file, self.size_bytes)
