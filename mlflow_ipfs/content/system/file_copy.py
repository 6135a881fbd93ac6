"""Copying the bytes of one open file to another, inside the kernel where it can do that."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP_BYTES: Final = 8 << 20  # few calls, and progress and Ctrl-C get their turn every few milliseconds
_BUFFER_BYTES: Final = 1 << 20
# What kernels and file systems answer when they can't copy by themselves, or not between these two places.
_CANNOT_COPY: Final = frozenset({
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF
})  # fmt: skip


def copy_bytes(source: int, destination: int, progress: Callable[[int], None] | None = None) -> int:
    """Copy what is left of an open file to the position of another. Returns how many bytes it was.

    The two never share an inode; file systems with reflinks may let them share blocks until one is written to.

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
    """Copy step by step. Each way goes on where the other stopped: both move the files' positions."""
    if hasattr(os, "copy_file_range"):
        try:
            while count := os.copy_file_range(source, destination, _STEP_BYTES):
                yield count
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    # Where nothing is left, this finds the end at once. Some file systems answer 0 although there is more.
    view = memoryview(bytearray(_BUFFER_BYTES))
    while count := os.readv(source, [view]):
        write_all(destination, view[:count])
        yield count


def write_all(descriptor: int, view: memoryview) -> None:
    """Write all of a buffer at a file's position."""
    while view:
        view = view[os.write(descriptor, view) :]
