"""Durable copies of the immutable files of a store in another directory. Existing copies are not made again."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.drafts import Draft, Syncer
from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS
from mlflow_ipfs.errors import DiskError, MlflowIpfsError, NotFoundError, PolicyError, StoreBusyError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.backup.index_copy import BackupFile
    from mlflow_ipfs.content.storage.local.index.index_rows import Stamp
    from mlflow_ipfs.content.system.disk import Disk

_COPY_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 4096  # the smallest unit in which a disk loses data
_UNUSABLE_PATH: Final = (errno.ENAMETOOLONG, errno.ELOOP)
_MAX_PENDING: Final = 64  # files that are synced at the same time
_NO_PERMISSION: Final = (PolicyError, "give this user read and write permission, or name another path")
_ERRORS: Final[dict[int, tuple[type[MlflowIpfsError], str]]] = {
    errno.EIO: (DiskError, "check that disk"),
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: (PolicyError, "its disk is mounted read-only; mount it writable, or name another path"),
    errno.ENOTDIR: (PolicyError, "a part of the path is a file instead of a directory; name another path"),
    errno.ENOENT: (NotFoundError, "another program has removed it; put it back, and run this again"),
}

_Pending = tuple["Future[Stamp]", "Path", "Path"]  # the stamp of the durable draft, the draft, its destination


@dataclass(slots=True)
class FileCopier:
    """Copier of files into one directory. A copied file keeps its mtime, and is recognized by mtime and size.

    Args:
        disk: performs every operation.
        directory: the directory of the store copy.
        drafts: an empty directory on the same file system.
        previous: the files in the index that the store copy has now, by name.
        progress: called with the number of bytes copied since its last call.

    Attributes:
        copied: the files that were copied.
        unreadable: rows of files that the disk could read only in part. The other bytes were written as zeros, unless
            the store copy had the file already.
    """

    disk: Disk
    directory: Path
    drafts: Path
    previous: Mapping[str, BackupFile]
    progress: Callable[[int], None] | None = None
    copied: list[BackupFile] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    _directories: set[Path] = field(default_factory=set)

    def has(self, file: BackupFile) -> bool:
        """Return whether the store copy has the file already, without known damage."""
        previous = self.previous.get(file.name)
        if previous is not None and previous.is_damaged:
            return False
        # A file that is not in the index was left by an interrupted backup. It is complete, with the original's mtime.
        known = previous or file
        status = status_of(self.directory / file.name)
        return status is not None and (status.st_size, status.st_mtime_ns) == (file.size_bytes, known.mtime_ns)

    def copy(self, files: Iterable[tuple[BackupFile, Path]]) -> None:
        """Copy files, each from a path. They are durable when the call returns.

        Raises:
            StoreFullError: the disk is full.
            StoreBusyError: a file was deleted during the copy.
            PolicyError: a directory of the store copy is a symbolic link or a file.
        """
        syncer = Syncer(self.disk)
        pending: deque[_Pending] = deque()
        try:
            with translate_copy_errors(self.directory):
                for file, source in files:
                    pending += self._start(syncer, file, source)
                    if len(pending) >= _MAX_PENDING:
                        self._finish(*pending.popleft())
                while pending:
                    self._finish(*pending.popleft())
                for directory in sorted(self._directories):
                    self.disk.sync_directory(directory)
        finally:
            syncer.close()

    def _start(self, syncer: Syncer, file: BackupFile, source: Path) -> Iterator[_Pending]:
        destination = self.directory / file.name
        if destination.parent not in self._directories:
            make_real_directory(self.disk, destination.parent)
            self._directories |= {destination.parent, destination.parent.parent}
        draft = self.drafts / f"{file.id:x}"
        descriptor = self.disk.create(draft)
        try:
            is_whole = self._copy_bytes(source, descriptor)
            # A partial file must not get the original's mtime: the next backup would consider it complete.
            self.disk.set_mtime(descriptor, file.mtime_ns if is_whole else 0)
        except BaseException:
            self.disk.close(descriptor)
            raise
        if not is_whole:
            self.unreadable.add(file.id)
            if status_of(destination) is not None:  # keep it: although damaged, it may have the unreadable bytes
                self.disk.close(descriptor)
                self.disk.remove(draft)
                return
        self.copied.append(file)
        yield syncer.start(Draft(draft, descriptor)), draft, destination

    def _copy_bytes(self, source: Path, descriptor: int) -> bool:
        """Copy the bytes that the disk can read, and zeros for the others. Return whether all could be read."""
        is_whole = True
        for piece, is_readable in _read_pieces(self.disk, source):
            self.disk.write(descriptor, piece)
            is_whole &= is_readable
            if self.progress is not None:
                self.progress(len(piece))
        return is_whole

    def _finish(self, is_durable: Future[Stamp], draft: Path, destination: Path) -> None:
        is_durable.result()
        self.disk.rename(draft, destination)


def is_copy_of(disk: Disk, path: Path, source: Path) -> bool:
    """Return whether a file has the same bytes as its source, apart from unreadable parts of the source.

    Raises:
        OSError: the first file cannot be read.
    """
    descriptor = disk.open_to_read(path)
    try:
        if disk.status(path).st_size != disk.status(source).st_size:
            return False
        offset = 0
        for piece, is_readable in _read_pieces(disk, source):
            if is_readable and disk.read_at(descriptor, offset, len(piece)) != piece:
                return False
            offset += len(piece)
        return True
    finally:
        disk.close(descriptor)


def _read_pieces(disk: Disk, path: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of a file in pieces, each with False if it is unreadable and zeros are yielded instead."""
    try:
        descriptor = disk.open_to_read(path)
    except FileNotFoundError as error:
        msg = f"{path} was deleted while it was being copied: try again when no gc runs"
        raise StoreBusyError(msg) from error
    try:
        size_bytes = disk.status(path).st_size
        for offset in range(0, size_bytes, _COPY_BYTES):
            length = min(_COPY_BYTES, size_bytes - offset)
            piece = _read(disk, descriptor, offset, length)
            if piece is not None:
                yield piece, True
            else:
                yield from _salvage(disk, descriptor, offset, length)
    finally:
        disk.close(descriptor)


def _salvage(disk: Disk, descriptor: int, offset: int, length: int) -> Iterator[tuple[bytes, bool]]:
    """Yield a piece with a bad sector page by page: blocks in the other pages may be whole."""
    end = offset + length
    for start in range(offset, end, _PAGE_BYTES):
        page_bytes = min(_PAGE_BYTES, end - start)
        page = _read(disk, descriptor, start, page_bytes)
        yield (bytes(page_bytes), False) if page is None else (page, True)


def _read(disk: Disk, descriptor: int, offset: int, length: int) -> bytes | None:
    """Return a piece of a file; None if the disk cannot read it."""
    try:
        return disk.read_at(descriptor, offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


@contextmanager
def translate_copy_errors(directory: Path) -> Iterator[None]:
    """Translate an ``OSError`` of a disk, usually the one with the store copy, into an error of this package.

    Raises:
        StoreFullError: the disk is full.
        DiskError: the disk fails.
        PolicyError: the disk is read-only or this user has no permission; or a name is too long, or a symbolic link
            leads back to itself.
        NotFoundError: another program has removed a file or directory.
        MlflowIpfsError: any other error.
    """
    try:
        yield
    except MlflowIpfsError:
        raise
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            msg = (
                f"the disk with {directory} is full. The previous files there were not changed. Free some space and "
                "run this again: it resumes from here"
            )
            raise StoreFullError(msg) from error
        raise _translate(directory, error) from error


def _translate(directory: Path, error: OSError) -> MlflowIpfsError:
    path = directory if error.filename is None else os.fsdecode(error.filename)
    reason = error.strerror or str(error)
    if error.errno in _UNUSABLE_PATH:
        return PolicyError(
            f"{path} cannot be used as a path ({reason}): name another one. The previous files there were not changed"
        )
    kind, advice = _ERRORS.get(error.errno or 0, (MlflowIpfsError, "remove the cause, and run this again"))
    return kind(f"{path} cannot be read or written ({reason}): {advice}. The previous files there were not changed")


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links, whether or not the path exists.

    Raises:
        PolicyError: a symbolic link in the path leads back to itself.
    """
    try:
        return path.resolve()
    except RuntimeError as error:
        msg = f"{path} contains a symbolic link that leads back to itself: remove that link, or name another path"
        raise PolicyError(msg) from error


def make_real_directory(disk: Disk, directory: Path) -> None:
    """Create a directory unless it exists.

    Raises:
        PolicyError: the path is a symbolic link or a file.
    """
    disk.make_directory(directory)
    if not stat.S_ISDIR(directory.lstat().st_mode):
        msg = f"{directory} is a symbolic link or a file instead of a directory, and was not changed: remove it"
        raise PolicyError(msg)


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None if the path does not exist or is not a regular file."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None
