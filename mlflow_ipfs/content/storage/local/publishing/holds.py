"""Holds: blocks that gc keeps although no name needs them, for work that takes longer than a publication should.

An open publication prevents gc from deleting any file that was marked deletable since the publication began. A hold
protects single blocks instead, so that gc can delete all other garbage. A hold is a locked file of multihashes below
``sessions``; the lock ends with its process. gc marks these blocks like roots, but does not follow their links. It
reads the holds in its snapshot, and reads what was added since in the transaction that writes the tombstones.

The caller must add and flush a block while a publication is open that found or put the block. At any moment the
publication or the hold protects the block, because gc looks for open publications before it reads the holds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from mlflow_ipfs.content.cid import CID, IDENTITY, RAW
from mlflow_ipfs.content.storage.local.files.sessions import HOLD_PREFIX, lock_new
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors
from mlflow_ipfs.content.system.locking import try_flock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_HEADER: Final = b"mlflow-ipfs hold of blocks 1\n"  # replaces the process id, which is shorter
_FLUSH_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20


class LocalHold:
    """A hold on blocks of one local store. See ``Hold``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._pid = os.getpid()
        self._unwritten = bytearray()
        with translate_disk_errors(context.layout.directory):
            self._file = lock_new(context.layout, HOLD_PREFIX)
            self._file.write_at(_HEADER, 0)
        self._size_bytes = len(_HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid == os.getpid():  # a forked child must not end the hold of its parent
            self._context.disk.remove(self._file.path)
            self._file.release()

    def add(self, cid: CID) -> None:
        """Add a block, protected from the next ``flush`` on."""
        multihash = cid.multihash
        if multihash[0] != IDENTITY:
            self._unwritten.append(len(multihash))
            self._unwritten += multihash
            if len(self._unwritten) >= _FLUSH_BYTES:
                self.flush()

    def flush(self) -> None:
        """Protect the blocks that were added.

        Raises:
            StoreFullError: the disk has no room for the list.
        """
        with translate_disk_errors(self._context.layout.directory):
            self._file.write_at(bytes(self._unwritten), self._size_bytes)
        self._size_bytes += len(self._unwritten)
        self._unwritten.clear()


class HeldBlocks:
    """The blocks that the open holds of a store protect, as one gc reads them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ends: dict[Path, int] = {}

    def read_new(self) -> Iterator[CID]:
        """Yield the blocks that were added since the last call, as raw CIDs: a hold does not protect linked blocks."""
        for path in self._layout.sessions.glob(f"{HOLD_PREFIX}*"):
            yield from self._read(path)

    def _read(self, path: Path) -> Iterator[CID]:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return  # the hold has just ended
        try:
            if try_flock(descriptor, shared=True):
                return  # its process has ended
            end = self._ends.get(path, len(_HEADER))
            while piece := os.pread(descriptor, _PIECE_BYTES, end):
                position = 0
                while position < len(piece) and position + piece[position] < len(piece):
                    yield CID(1, RAW, piece[position + 1 : position + 1 + piece[position]])
                    position += 1 + piece[position]
                if not position:
                    break  # an incomplete record: the writer has not written the rest yet
                end += position
            self._ends[path] = end
        finally:
            os.close(descriptor)
