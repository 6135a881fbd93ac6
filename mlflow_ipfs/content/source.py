"""Sources: files, folders and symlinks on disk, read so that a change under our hands is noticed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mlflow_ipfs.errors import InvalidPathError, NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# No symlink and no pipe that took a file's place after we looked at it: the one would lead elsewhere, the
# other would make us wait for ever.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


class SourceKind(Enum):
    """What a path is."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Source:
    """A path that is going to be imported, as bytes, with what ``lstat`` says of it."""

    path: bytes
    kind: SourceKind
    status: os.stat_result


def look_at(path: bytes) -> Source:
    """Find out what a path is.

    Raises:
        NotFoundError: nothing is there.
        InvalidPathError: it is a socket, a device or a pipe, or the path holds a NUL character.
    """
    if b"\0" in path:
        msg = f"the path {os.fsdecode(path)!r} holds a NUL character"
        raise InvalidPathError(msg)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"there is no file or folder {os.fsdecode(path)!r}"
        raise NotFoundError(msg) from None
    for kind, test in _TESTS:
        if test(status.st_mode):
            return Source(path, kind, status)
    msg = f"{os.fsdecode(path)!r} is neither a file nor a folder nor a symlink, so it has no content to add"
    raise InvalidPathError(msg)


_TESTS = (
    (SourceKind.FILE, stat.S_ISREG),
    (SourceKind.FOLDER, stat.S_ISDIR),
    (SourceKind.SYMLINK, stat.S_ISLNK),
)


def list_folder(path: bytes) -> list[bytes]:
    """Names in a folder, in byte order."""
    return sorted(os.listdir(path))


def look_at_child(folder: Source, name: bytes) -> Source:
    """Find out what a name that was listed in a folder is.

    Raises:
        SourceChangedError: it is gone.
        InvalidPathError: it is a socket, a device or a pipe.
    """
    path = os.path.join(folder.path, name)
    try:
        return look_at(path)
    except NotFoundError as error:
        raise changed(path) from error


def read_symlink(source: Source) -> bytes:
    """Where a symlink points to, as it is written there.

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
def open_source(source: Source) -> Iterator[int]:
    """Open a file for one read from start to end; gives its descriptor.

    Raises:
        SourceChangedError: size, times or identity of the file are not what they were when it
            was looked at, now or when the block ends.
    """
    try:
        descriptor = os.open(source.path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        raise changed(source.path) from error
    try:
        _check_unchanged(source, descriptor)
        yield descriptor
        _check_unchanged(source, descriptor)
    finally:
        os.close(descriptor)


def _check_unchanged(source: Source, descriptor: int) -> None:
    if _stamp(source.status) != _stamp(os.fstat(descriptor)):
        raise changed(source.path)


def changed(path: bytes) -> SourceChangedError:
    """The error for a file that changed while it was read."""
    msg = f"{os.fsdecode(path)!r} changed while it was read; nothing was added: add it again when nobody writes to it"
    return SourceChangedError(msg)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class SourceReader:
    """Reads a file from its start by offset, whatever else moves the descriptor's position."""

    def __init__(self, source: Source, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor
        self._offset = 0

    def fill(self, view: memoryview) -> int:
        """Fill a buffer with the next bytes; returns its length.

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
        return filled

    def check_end(self) -> None:
        """Make sure that nothing is left.

        Raises:
            SourceChangedError: the file has more bytes than its size says. It grew, or it is one that
                states no size, as files in ``/proc``: the content of such a file is never the same.
        """
        if os.pread(self._descriptor, 1, self._offset):
            raise changed(self._source.path)
