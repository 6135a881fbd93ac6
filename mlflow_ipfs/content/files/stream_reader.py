"""Reader of a stream of unknown size, and file object over the bytes that were written from such a stream."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer


class StreamReader:
    """Reader of a stream to its end.

    Args:
        stream: the stream. A call of ``read`` may return fewer bytes than requested.
        progress: called with the number of bytes just read.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None]) -> None:
        self._stream = stream
        self._progress = progress
        self._ahead = memoryview(b"")

    def peek(self, size_bytes: int) -> bytes:
        """Return the first bytes of the stream, fewer only if the stream ends. ``fill`` returns them again.

        Call this at most once, and before ``fill``.
        """
        buffer = memoryview(bytearray(size_bytes))
        self._ahead = buffer[: self._read(buffer)]
        return bytes(self._ahead)

    def fill(self, view: memoryview) -> int:
        """Fill a buffer with the next bytes and return their number, less than its length only if the stream ends."""
        taken = min(len(view), len(self._ahead))
        view[:taken] = self._ahead[:taken]
        self._ahead = self._ahead[taken:]
        return taken + self._read(view[taken:])

    def _read(self, view: memoryview) -> int:
        """Read from the stream until the buffer is full or the stream ends. Return the number of bytes."""
        filled = 0
        while filled < len(view):
            piece = self._stream.read(len(view) - filled)
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled:
            self._progress(filled)
        return filled


class _Readable(Protocol):
    def read_at(self, offset: int, length: int) -> bytes: ...


class SpooledFile(io.RawIOBase):
    """Seekable file object over the bytes written to a ``FileWriter`` so far. A writer may have several of them.

    Args:
        writer: a writer that was started with ``read_back``.
        size_bytes: number of bytes written so far.
    """

    def __init__(self, writer: _Readable, size_bytes: int) -> None:
        super().__init__()
        self._writer = writer
        self._size_bytes = size_bytes
        self._offset = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            msg = f"cannot seek to {base + offset}, before the start of the file"
            raise ValueError(msg)
        self._offset = base + offset
        return self._offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer with the next bytes and return their number, less than its length only at the end."""
        view = memoryview(buffer).cast("B")
        length = min(len(view), max(self._size_bytes - self._offset, 0))
        data = self._writer.read_at(self._offset, length)
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)
