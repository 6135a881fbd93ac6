"""Everything that the local store, its copies and unfinished CARs do to the disk, in one small place.

Each step that matters after a crash or on a full disk is one method here, SQLite's commits and
checkpoints included, so that a test can fail it, kill the process at it, or record it. Only lock
files, which hold nothing, are opened elsewhere. Python opens every file with O_CLOEXEC (PEP 446).
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

SEALED_MODE: Final = 0o444  # of what never changes again
COPY_MODE: Final = 0o644  # of what a caller may write to
_FICLONE: Final = 0x40049409  # linux/fs.h; the same on x86-64, arm64 and riscv64
_COPY_PAGES: Final = 4096
NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})  # of `link`
_DRAFT_SUFFIX: Final = ".new"
FULL_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(path: Path) -> int:
    """How much an ordinary user may still write to the disk under something that exists."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def is_draft_of(name: str, other: str) -> bool:
    """Tell whether a file is what a broken-off ``Disk.write_file`` has left beside the one of that name."""
    return (
        other.startswith(f"{name}.")
        and other.endswith(_DRAFT_SUFFIX)
        and other[len(name) + 1 : -len(_DRAFT_SUFFIX)].isdecimal()
    )


class Disk:
    """The disk as it is. Tests derive from it."""

    def create(self, path: Path, mode: int | None = None) -> int:
        """Create a file that isn't there yet and return a descriptor to write to it.

        Args:
            path: the file.
            mode: of a file for a caller, which belongs to the user of this process. None: a file of a store or of a
                backup, which belongs to the owner of its directory: see ``ownership.py``.
        """
        if mode is None:
            return ownership.create_file(path, os.O_WRONLY)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at the descriptor's position."""
        write_all(descriptor, memoryview(data))

    def start_writeback(self, descriptor: int, offset: int, length: int) -> None:
        """Let the system begin to write a piece of a file to the disk, so that ``sync`` finds less to do. Promises nothing."""
        if sys.platform == "linux":  # elsewhere the same advice only drops what was read
            # mm/fadvise.c: what is dirty is given to the disk without waiting, and stays in memory.
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes would survive a loss of power."""
        if sys.platform == "darwin":  # fsync there only reaches the drive's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory would survive a loss of power."""
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
        """Give a file the time of what it is a copy of."""
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def make_read_only(self, path: Path) -> None:
        """Seal a file that was copied here and has lost its mode on the way."""
        path.chmod(SEALED_MODE)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        """Move a file within its file system."""
        ownership.rename(source, destination)

    def remove(self, path: Path) -> None:
        """Remove a file; that it is gone already is no error."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """Make a directory for the users of the one around it; that it is there already is no error."""
        with suppress(FileExistsError):
            ownership.create_directory(path)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all below it, as far as that is possible."""
        shutil.rmtree(path, ignore_errors=True)

    def open_to_read(self, path: Path | str) -> int:
        """Open a file for ``read_at``."""
        return os.open(path, os.O_RDONLY)

    def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        """Read ``length`` bytes at ``offset``; fewer only where the file ends."""
        data = os.pread(descriptor, length, offset)
        while 0 < len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_at_or_empty(self, descriptor: int, offset: int, length: int) -> bytes:
        """As ``read_at``; nothing where the disk has lost it. For those who hash what they get."""
        try:
            return self.read_at(descriptor, offset, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def read_piece(self, path: Path | str, offset: int, length: int) -> bytes:
        """Read a piece of a file, as ``read_at_or_empty``."""
        descriptor = self.open_to_read(path)
        try:
            return self.read_at_or_empty(descriptor, offset, length)
        finally:
            os.close(descriptor)

    def status(self, path: Path) -> os.stat_result:
        """What the file system says of a file."""
        return os.stat(path)

    def write_file(self, path: Path, data: bytes) -> None:
        """Write a whole small file durably: it is there with all its bytes, or as it was before."""
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
        """Create a file that really occupies so many bytes."""
        descriptor = self.create(path)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size_bytes)
            else:
                self.write(descriptor, os.urandom(size_bytes))
        finally:
            self.close(descriptor)

    def clone(self, source: Path, destination: Path) -> None:
        """Make a new file that shares its bytes with ``source`` until one of them is written to.

        Raises:
            OSError: with EOPNOTSUPP or another number where the file system has no reflinks.
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
        """Give a file a second name."""
        ownership.link(source, destination)

    def copy(self, source: Path, destination: Path) -> None:
        """Make a new file with the bytes of ``source``, or none at all."""
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
        """How much an ordinary user may still write to the disk under ``path``."""
        return free_bytes(path)

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit SQLite's transaction: the point from which a publication counts as acknowledged."""
        connection.execute("COMMIT")

    def copy_database(self, connection: sqlite3.Connection, path: Path) -> int:
        """Write a copy of SQLite's database to a new file. Returns a descriptor of it, to be synced and closed."""
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
        """Move SQLite's log into the database file, and empty it if nobody reads from it."""
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
