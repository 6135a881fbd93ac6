"""Disk operations of the local store, of its backups and of unfinished CARs.

Each step that matters after a crash or on a full disk is one method of ``Disk``, including SQLite's commits and
checkpoints. So a test can make the step fail, kill the process at it, or record it. Only lock files, which contain no
content, are opened elsewhere. Python opens every file with O_CLOEXEC (PEP 446).
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.system import ownership
from mlflow_ipfs.content.system.file_copy import copy_bytes, write_all

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from pathlib import Path

SEALED_MODE: Final = 0o444  # of a file that never changes again
COPY_MODE: Final = 0o644  # of a file that a caller may write to
_FICLONE: Final = 0x40049409  # linux/fs.h; the same on x86-64, arm64 and riscv64
_COPY_PAGES: Final = 4096
# Errors of link() where the file system, or the pair of paths, does not support hard links.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})
_DRAFT_SUFFIX: Final = ".new"
FULL_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(path: Path) -> int:
    """Return the number of bytes that an ordinary user can still write to the disk of an existing path."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def is_draft_of(name: str, other: str) -> bool:
    """Return whether ``other`` is the name of a draft of ``name``, left by an interrupted ``Disk.write_file``."""
    return (
        other.startswith(f"{name}.")
        and other.endswith(_DRAFT_SUFFIX)
        and other[len(name) + 1 : -len(_DRAFT_SUFFIX)].isdecimal()
    )


class Disk:
    """The operations on the real disk. Tests derive from this class."""

    def create(self, path: Path, mode: int | None = None) -> int:
        """Create a file that must not exist, and return a descriptor for writing.

        Args:
            path: the file.
            mode: mode of a file for a caller, which the user of this process owns. None for a file of a store or of a
                backup, which the owner of its directory owns: see ``ownership.py``.
        """
        if mode is None:
            return ownership.create_file(path, os.O_WRONLY)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at the descriptor's position."""
        write_all(descriptor, memoryview(data))

    def start_writeback(self, descriptor: int, offset: int, length: int) -> None:
        """Start writing a range of a file to the disk, so that ``sync`` takes less time. This gives no guarantee."""
        if sys.platform == "linux":  # elsewhere the same advice only drops clean pages
            # mm/fadvise.c: dirty pages are submitted to the disk without waiting, and stay in memory.
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def sync(self, descriptor: int) -> None:
        """Wait until the bytes of a file would survive a loss of power."""
        if sys.platform == "darwin":  # fsync there only reaches the cache of the drive
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Wait until the names in a directory would survive a loss of power."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def seal(self, descriptor: int) -> os.stat_result:
        """Make a finished file read-only and return its status."""
        os.fchmod(descriptor, SEALED_MODE)
        return os.fstat(descriptor)

    def set_mtime(self, descriptor: int, mtime_ns: int) -> None:
        """Set the modification time of a copy to that of its source."""
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def make_read_only(self, path: Path) -> None:
        """Seal a file that lost its mode when the store was copied."""
        path.chmod(SEALED_MODE)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        """Move a file within its file system."""
        ownership.rename(source, destination)

    def remove(self, path: Path) -> None:
        """Remove a file. No-op if the file does not exist."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """Create a directory with the owner and sharing of its parent. No-op if the directory exists."""
        with suppress(FileExistsError):
            ownership.create_directory(path)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and everything below it. Errors are ignored."""
        shutil.rmtree(path, ignore_errors=True)

    def open_to_read(self, path: Path | str) -> int:
        """Open a file for ``read_at``, and return the descriptor."""
        return os.open(path, os.O_RDONLY)

    def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``, fewer only at the end of the file."""
        data = os.pread(descriptor, length, offset)
        while 0 < len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_at_or_empty(self, descriptor: int, offset: int, length: int) -> bytes:
        """Return what ``read_at`` returns, or no bytes on a read error of the disk. For callers that hash the bytes."""
        try:
            return self.read_at(descriptor, offset, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def read_piece(self, path: Path | str, offset: int, length: int) -> bytes:
        """Open a file and return what ``read_at_or_empty`` returns."""
        descriptor = self.open_to_read(path)
        try:
            return self.read_at_or_empty(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def status(self, path: Path) -> os.stat_result:
        """Return the status of a file."""
        return os.stat(path)

    def write_file(self, path: Path, data: bytes) -> None:
        """Write a small file atomically and durably. After a crash it has all new bytes or its former content."""
        draft = path.with_name(f"{path.name}.{os.getpid()}{_DRAFT_SUFFIX}")
        self.remove(draft)
        descriptor = self.create(draft)
        try:
            self.write(descriptor, data)
            self.sync(descriptor)
        finally:
            self.close(descriptor)
        self.rename(draft, path)
        self.sync_directory(path.parent)

    def allocate(self, path: Path, size_bytes: int) -> None:
        """Create a file that occupies ``size_bytes`` bytes on the disk."""
        descriptor = self.create(path)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size_bytes)
            else:
                self.write(descriptor, os.urandom(size_bytes))
        finally:
            self.close(descriptor)

    def clone(self, source: Path, destination: Path) -> None:
        """Create a reflink: a new file that shares its bytes with ``source`` until one of them is written to.

        Raises:
            OSError: the file system does not support reflinks (EOPNOTSUPP or another number).
        """
        if sys.platform != "linux":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(source))
        with source.open("rb") as original:
            descriptor = self.create(destination, COPY_MODE)
            try:
                fcntl.ioctl(descriptor, _FICLONE, original.fileno())
            except OSError:
                self.remove(destination)
                raise
            finally:
                self.close(descriptor)

    def link(self, source: Path, destination: Path) -> None:
        """Create a hard link."""
        ownership.link(source, destination)

    def copy(self, source: Path, destination: Path) -> None:
        """Create a copy of a file. On an error, no file is left at the destination."""
        with source.open("rb") as original:
            descriptor = self.create(destination, COPY_MODE)
            try:
                copy_bytes(original.fileno(), descriptor)
            except BaseException:
                self.remove(destination)
                raise
            finally:
                self.close(descriptor)

    def free_bytes(self, path: Path) -> int:
        """Return the number of bytes that an ordinary user can still write to the disk of ``path``."""
        return free_bytes(path)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit SQLite's transaction. From here on, a publication is durable."""
        connection.execute("COMMIT")

    def copy_database(self, connection: sqlite3.Connection, path: Path) -> int:
        """Copy a SQLite database to a new file, and return a descriptor of it. The caller must sync and close it."""
        descriptor = self.create(path)
        try:
            copy = sqlite3.connect(path, isolation_level=None)
            try:
                connection.backup(copy, pages=_COPY_PAGES)
            finally:
                copy.close()
        except BaseException:
            self.close(descriptor)
            raise
        return descriptor

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Move SQLite's write-ahead log into the database file, and truncate the log if no connection reads from it."""
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
