"""Detection of temporary files of a server, with or without a name, while requests are served. Linux only."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BYTES: Final = 64 << 10  # smaller files are ignored, because servers use some internally
_POLL_SECONDS: Final = 0.002


@contextlib.contextmanager
def watch_temporary_files(directory: Path, group: int) -> Iterator[dict[str, int]]:
    """Search for temporary files until the block ends. Yield a dict of their sizes in bytes by path, which grows.

    Args:
        directory: directory for temporary files of the processes (``TMPDIR``).
        group: process group of the server. Its open files in the directory are found even if they were unlinked.
    """
    found: dict[str, int] = {}
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.wait(_POLL_SECONDS):
            found.update(_temporary_files(directory, group))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        has_ended.set()
        watcher.join()


def _temporary_files(directory: Path, group: int) -> dict[str, int]:
    files = [file for file in directory.rglob("*") if not file.is_symlink()]  # a symlink is not a copy
    for process in _processes_of(group):
        with contextlib.suppress(OSError):
            files += [file for file in (process / "fd").iterdir() if _is_open_in(directory, file)]
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            if file.is_file() and file.stat().st_size >= SMALL_BYTES:
                found[str(file)] = file.stat().st_size
    return found


def _processes_of(group: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(process.name)) == group:
                yield process


def _is_open_in(directory: Path, descriptor: Path) -> bool:
    with contextlib.suppress(OSError):
        return descriptor.readlink().is_relative_to(directory)
    return False
