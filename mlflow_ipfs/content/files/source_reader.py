"""Reader of one source, a file or a symlink, that detects changes while the source is read."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.files.source import source_changed_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_ipfs.content.files.source import Source

# A symlink or a pipe may have replaced the file after its lstat. O_NOFOLLOW rejects the symlink, and with O_NONBLOCK
# opening the pipe does not block for ever.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def read_symlink(source: Source) -> bytes:
    """Return the target of a symlink exactly as it is stored.

    Raises:
        SourceChangedError: the path is no longer a symlink.
    """
    try:
        return os.readlink(source.path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        raise source_changed_error(source.path) from error


@contextmanager
def open_source(source: Source, progress: Callable[[int], None]) -> Iterator[SourceReader]:
    """Open a file for one read from start to end.

    The file is checked when it is opened, and again at the end of the ``with`` block.

    Args:
        source: the file.
        progress: called with the number of bytes just read.

    Raises:
        SourceChangedError: the identity, mode, size or times of the file differ from ``source.status``. Or the file has
            bytes beyond its size at the end of the block.
    """
    try:
        descriptor = os.open(source.path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        raise source_changed_error(source.path) from error
    try:
        reader = SourceReader(source, descriptor, progress)
        reader.check_unchanged()
        yield reader
        reader.check_end()
        reader.check_unchanged()
    finally:
        os.close(descriptor)


class SourceReader:
    """Sequential reader of a file by offset, independent of the descriptor's position. Created by ``open_source``."""

    def __init__(self, source: Source, descriptor: int, progress: Callable[[int], None]) -> None:
        self._source = source
        self._descriptor = descriptor
        self._progress = progress
        self._offset = 0

    def fill(self, view: memoryview) -> int:
        """Fill a buffer with the next bytes and return its length.

        Raises:
            SourceChangedError: the file ends before its recorded size.
        """
        filled = 0
        while filled < len(view):
            count = os.preadv(self._descriptor, [view[filled:]], self._offset)
            if not count:
                raise source_changed_error(self._source.path)
            filled += count
            self._offset += count
        self._progress(filled)
        return filled

    def read_all(self) -> bytes:
        """Return the whole file, which must fit into memory.

        Raises:
            SourceChangedError: the file ends before its recorded size.
        """
        data = bytearray(self._source.status.st_size)
        self.fill(memoryview(data))
        return bytes(data)

    @contextmanager
    def for_chunker(self) -> Iterator[BinaryIO]:
        """Yield a file object of the open file for a chunker, which may read it and change its position."""
        with os.fdopen(os.dup(self._descriptor), "rb", buffering=0) as file:
            yield file

    def check_unchanged(self) -> None:
        """Raise if the status of the open file differs from the status that ``lstat`` returned for its path.

        Raises:
            SourceChangedError: identity, mode, size or times differ.
        """
        if _stamp(self._source.status) != _stamp(os.fstat(self._descriptor)):
            raise source_changed_error(self._source.path)

    def check_end(self) -> None:
        """Raise if the file has more bytes than were read.

        Raises:
            SourceChangedError: the file grew, or its size is reported as 0 as for files in ``/proc``. The content of
                such files changes with each read.
        """
        if os.pread(self._descriptor, 1, self._offset):
            raise source_changed_error(self._source.path)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return the fields that change when a file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
