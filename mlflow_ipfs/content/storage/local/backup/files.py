"""Copying the immutable files of a store into another directory: durably, and only those that are not there yet."""

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
_PAGE_BYTES: Final = 4096  # the least that a disk loses
_NO_NAMES: Final = (errno.ENAMETOOLONG, errno.ELOOP)
_WAITING: Final = 64  # files that are being synced
_NO_RIGHT: Final = (PolicyError, "let this user read and write there, or name another place")
_KINDS: Final[dict[int, tuple[type[MlflowIpfsError], str]]] = {
    errno.EIO: (DiskError, "look at that disk"),
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: (PolicyError, "its disk is mounted read-only; let it be written to, or name another place"),
    errno.ENOTDIR: (PolicyError, "there is a file where a directory must be; name another place"),
    errno.ENOENT: (NotFoundError, "somebody has removed it meanwhile; put it back, and run this again"),
}

_Waiting = tuple["Future[Stamp]", "Path", "Path"]  # when it is durable, from where, to where


@dataclass(slots=True)
class FileCopier:
    """Copies into one directory. A file that was copied once has its time, and is known by it and its size.

    Args:
        disk: takes every step.
        directory: the copy's directory.
        drafts: an empty directory beside it, on the same file system.
        former: the files of the index that the copy had until now, by name.
        progress: told how many bytes were copied since it was told last.

    Attributes:
        copied: the files that were copied.
        unreadable: those that a disk gave only in part: zeros stand for the rest, unless the copy had the file before.
    """

    disk: Disk
    directory: Path
    drafts: Path
    former: Mapping[str, BackupFile]
    progress: Callable[[int], None] | None = None
    copied: list[BackupFile] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    _directories: set[Path] = field(default_factory=set)

    def has(self, file: BackupFile) -> bool:
        """Tell whether the copy has the file already, whole as far as known."""
        former = self.former.get(file.name)
        if former is not None and former.is_damaged:
            return False
        # One that no index has was left by a copy that was broken off: it is complete, and has the original's time.
        known = former or file
        status = status_of(self.directory / file.name)
        return status is not None and (status.st_size, status.st_mtime_ns) == (file.size_bytes, known.mtime_ns)

    def copy(self, files: Iterable[tuple[BackupFile, Path]]) -> None:
        """Copy files, each from a path. They are durable when the call returns.

        Raises:
            StoreFullError: there is no room for them.
            StoreBusyError: one of them is gone.
            PolicyError: a directory of the copy is none, but leads elsewhere.
        """
        syncer = Syncer(self.disk)
        waiting: deque[_Waiting] = deque()
        try:
            with translate_copy_errors(self.directory):
                for file, source in files:
                    waiting += self._start(syncer, file, source)
                    if len(waiting) >= _WAITING:
                        self._finish(*waiting.popleft())
                while waiting:
                    self._finish(*waiting.popleft())
                for directory in sorted(self._directories):
                    self.disk.sync_directory(directory)
        finally:
            syncer.close()

    def _start(self, syncer: Syncer, file: BackupFile, source: Path) -> Iterator[_Waiting]:
        destination = self.directory / file.name
        if destination.parent not in self._directories:
            make_real_directory(self.disk, destination.parent)
            self._directories |= {destination.parent, destination.parent.parent}
        draft = self.drafts / f"{file.id:x}"
        descriptor = self.disk.create(draft)
        try:
            is_whole = self._copy_bytes(source, descriptor)
            self.disk.set_mtime(descriptor, file.mtime_ns if is_whole else 0)  # else the next copy would call it whole
        except BaseException:
            self.disk.close(descriptor)
            raise
        if not is_whole:
            self.unreadable.add(file.id)
            if status_of(destination) is not None:  # damaged, too, but it may have what this one lacks
                self.disk.close(descriptor)
                self.disk.remove(draft)
                return
        self.copied.append(file)
        yield syncer.start(Draft(draft, descriptor)), draft, destination

    def _copy_bytes(self, source: Path, descriptor: int) -> bool:
        """Copy what the disk gives. Returns whether that was everything."""
        is_whole = True
        for piece, is_read in _pieces(self.disk, source):
            self.disk.write(descriptor, piece)
            is_whole &= is_read
            if self.progress is not None:
                self.progress(len(piece))
        return is_whole

    def _finish(self, is_durable: Future[Stamp], draft: Path, destination: Path) -> None:
        is_durable.result()
        self.disk.rename(draft, destination)


def is_copy_of(disk: Disk, path: Path, source: Path) -> bool:
    """Tell whether a file has the bytes of another, as far as a disk still gives those.

    Raises:
        OSError: the first file can't be read.
    """
    descriptor = disk.open_to_read(path)
    try:
        if disk.status(path).st_size != disk.status(source).st_size:
            return False
        offset = 0
        for piece, is_read in _pieces(disk, source):
            if is_read and disk.read_at(descriptor, offset, len(piece)) != piece:
                return False
            offset += len(piece)
        return True
    finally:
        disk.close(descriptor)


def _pieces(disk: Disk, path: Path) -> Iterator[tuple[bytes, bool]]:
    """The bytes of a file, piece by piece; and whether these are they, or zeros, because the disk has lost them."""
    try:
        descriptor = disk.open_to_read(path)
    except FileNotFoundError as error:
        msg = f"{path} was deleted while it was being copied; try again when no gc runs"
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
    """What lies around a bad sector: other blocks may be there, which are whole."""
    end = offset + length
    for start in range(offset, end, _PAGE_BYTES):
        page_bytes = min(_PAGE_BYTES, end - start)
        page = _read(disk, descriptor, start, page_bytes)
        yield (bytes(page_bytes), False) if page is None else (page, True)


def _read(disk: Disk, descriptor: int, offset: int, length: int) -> bytes | None:
    """A piece of a file; None if the disk has lost it."""
    try:
        return disk.read_at(descriptor, offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


@contextmanager
def translate_copy_errors(directory: Path) -> Iterator[None]:
    """Turn what the system says about a disk, as a rule the one under a copy, into our errors.

    Raises:
        StoreFullError: it has no room left.
        DiskError: it fails.
        PolicyError: it is read-only, or belongs to somebody else; or a name is too long, or a link leads to itself.
        NotFoundError: somebody has removed what was there.
        MlflowIpfsError: anything else.
    """
    try:
        yield
    except MlflowIpfsError:
        raise
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            msg = (
                f"the disk under {directory} is full; what was there before is untouched. Make room and run this again: "
                "it goes on from here"
            )
            raise StoreFullError(msg) from error
        raise _explain(directory, error) from error


def _explain(directory: Path, error: OSError) -> MlflowIpfsError:
    where = directory if error.filename is None else os.fsdecode(error.filename)
    what = error.strerror or str(error)
    if error.errno in _NO_NAMES:
        return PolicyError(
            f"{where} can't be a file's or directory's name ({what}): choose another one. What was there before is untouched"
        )
    kind, advice = _KINDS.get(error.errno or 0, (MlflowIpfsError, "mend that, and run this again"))
    return kind(f"{where} can't be read or written ({what}): {advice}. What was there before is untouched")


def real_path(path: Path) -> Path:
    """The absolute path without links, whether or not anything is there.

    Raises:
        PolicyError: a link in it leads back to itself.
    """
    try:
        return path.resolve()
    except RuntimeError as error:
        msg = f"{path} leads nowhere, since a link in it leads back to itself: remove that link, or name another place"
        raise PolicyError(msg) from error


def make_real_directory(disk: Disk, directory: Path) -> None:
    """Make a directory unless it is there.

    Raises:
        PolicyError: what is there leads elsewhere.
    """
    disk.make_directory(directory)
    if not stat.S_ISDIR(directory.lstat().st_mode):
        msg = f"{directory} is a link or a file where a directory must be; nothing is written through it. Remove it"
        raise PolicyError(msg)


def status_of(path: Path) -> os.stat_result | None:
    """The status of a file; None if there is none, or something else."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None
