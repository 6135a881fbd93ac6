"""Reading one source, a file or a symlink, so that a change while it is read is noticed."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.files.source import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_ipfs.content.files.source import Source

# No symlink and no pipe that took a file's place after we looked at it: the one would lead elsewhere, the
# other would make us wait for ever.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def read_symlink(source: Source) -> bytes:
    """Return where a symlink points to, as it is written there.

    Raises:
        SourceChangedError: it is no symlink any more.
    """
    try:
        return os.readlink(source.path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        raise changed(source.path) from error


@contextmanager
def open_source(source: Source, progress: Callable[[int], None]) -> Iterator[SourceReader]:
    """Open a file for one read from start to end.

    Args:
        source: the file.
        progress: called with the number of bytes just read.

    Raises:
        SourceChangedError: size, times or identity of the file are not what they were when it was examined: now,
            or when the block ends. Or the file has bytes beyond its size when the block ends.
    """
    try:
        descriptor = os.open(source.path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        raise changed(source.path) from error
    try:
        reader = SourceReader(source, descriptor, progress)
        reader.check_unchanged()
        yield reader
        reader.check_end()
        reader.check_unchanged()
    finally:
        os.close(descriptor)


class SourceReader:
    """Reads a file from its start by offset, whatever else moves the descriptor's position. Made by ``open_source``."""

    def __init__(self, source: Source, descriptor: int, progress: Callable[[int], None]) -> None:
        self._source = source
        self._descriptor = descriptor
        self._progress = progress
        self._offset = 0

    def fill(self, view: memoryview) -> int:
        """Fill a buffer with the next bytes and return its length.

        Raises:
            SourceChangedError: the file has ended, though its size said otherwise.
        """
        filled = 0
        while filled < len(view):
            count = os.preadv(self._descriptor, [view[filled:]], self._offset)
            if not count:
                raise changed(self._source.path)
            filled += count
            self._offset += count
        self._progress(filled)
        return filled

    def read_all(self) -> bytes:
        """Return the whole file, whose size must fit into memory.

        Raises:
            SourceChangedError: as ``fill``.
        """
        data = bytearray(self._source.status.st_size)
        self.fill(memoryview(data))
        return bytes(data)

    @contextmanager
    def for_chunker(self) -> Iterator[BinaryIO]:
        """Open the very same file for a chunker, which may read it and move its position meanwhile."""
        with os.fdopen(os.dup(self._descriptor), "rb", buffering=0) as file:
            yield file

    def check_unchanged(self) -> None:
        """Compare the open file with what ``lstat`` said of its path.

        Raises:
            SourceChangedError: they differ.
        """
        if _stamp(self._source.status) != _stamp(os.fstat(self._descriptor)):
            raise changed(self._source.path)

    def check_end(self) -> None:
        """Make sure that nothing is left.

        Raises:
            SourceChangedError: the file has more bytes than its size says. It grew, or it is one that
                states no size, as files in ``/proc``: the content of such a file is never the same.
        """
        if os.pread(self._descriptor, 1, self._offset):
            raise changed(self._source.path)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
