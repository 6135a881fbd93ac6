"""Copy of the bytes of one open file to another, inside the kernel where possible."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP_BYTES: Final = 8 << 20  # few calls, yet short enough that progress and Ctrl-C are handled every few milliseconds
_BUFFER_BYTES: Final = 1 << 20
# Errors of copy_file_range where the kernel cannot copy between these two files.
_CANNOT_COPY: Final = frozenset({
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF
})  # fmt: skip


def copy_bytes(source: int, destination: int, progress: Callable[[int], None] | None = None) -> int:
    """Copy the rest of an open file to the position of another, and return the number of bytes.

    The two files never share an inode. On file systems with reflinks they may share blocks until one is written to.

    Args:
        source: descriptor to read from.
        destination: descriptor to write to.
        progress: called with the number of bytes just copied.
    """
    copied = 0
    for step in _steps(source, destination):
        copied += step
        if progress is not None:
            progress(step)
    return copied


def _steps(source: int, destination: int) -> Iterator[int]:
    """Copy in steps, and yield the bytes of each step. Both methods advance the positions of the files."""
    if hasattr(os, "copy_file_range"):
        try:
            while count := os.copy_file_range(source, destination, _STEP_BYTES):
                yield count
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    # Some file systems return 0 before the end of the file. At the end, this loop stops at once.
    view = memoryview(bytearray(_BUFFER_BYTES))
    while count := os.readv(source, [view]):
        write_all(destination, view[:count])
        yield count


def write_all(descriptor: int, view: memoryview) -> None:
    """Write a whole buffer at the position of a file."""
    while view:
        view = view[os.write(descriptor, view) :]
