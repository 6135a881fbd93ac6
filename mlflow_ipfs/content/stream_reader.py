"""Reading a stream of unknown size once."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable


class StreamReader:
    """Reads a stream to its end.

    Args:
        stream: may return less than asked for at a time.
        progress: called with the number of bytes just read.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None]) -> None:
        self._stream = stream
        self._progress = progress
        self._ahead = memoryview(b"")

    def peek(self, size_bytes: int) -> bytes:
        """Return the first bytes of the stream, fewer only if it ends; ``fill`` will return them again.

        For one call, before any ``fill``.
        """
        buffer = memoryview(bytearray(size_bytes))
        self._ahead = buffer[: self._read(buffer)]
        return bytes(self._ahead)

    def fill(self, view: memoryview) -> int:
        """Fill a buffer with the next bytes; returns how many, fewer than its length only if the stream ends."""
        taken = min(len(view), len(self._ahead))
        view[:taken] = self._ahead[:taken]
        self._ahead = self._ahead[taken:]
        return taken + self._read(view[taken:])

    def _read(self, view: memoryview) -> int:
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
