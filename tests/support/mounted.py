"""Small separate file system for tests of full and read-only disks. Needs root."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class MountedDisk:
    """Mounted tmpfs."""

    directory: Path

    def remount(self, *, read_only: bool) -> None:
        """Allow or forbid writing."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", self.directory], check=True)

    def resize(self, size_bytes: int) -> None:
        """Change the size of the disk."""
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", self.directory], check=True)


@contextmanager
def mounted_tmpfs(directory: Path, *, size_bytes: int) -> Iterator[MountedDisk]:
    """Mount a tmpfs for the duration of a ``with`` block. The test is NOT RUN if mounting is not allowed."""
    directory.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", directory], capture_output=True, check=False
        )
    except FileNotFoundError:
        not_run("mounting a small disk needs the command `mount`")
    if done.returncode:
        not_run("mounting a small disk needs root (the same fault is injected in other tests)")
    try:
        yield MountedDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
