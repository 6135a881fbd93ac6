"""Export of a DAG to a CARv1 file.

The CAR is written to a draft in the same directory, which is renamed when it is complete. The next export resumes a
draft that an interrupted export left.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.car.format import CarPart, CarReader, car_block_size, encode_car_block, encode_car_header
from mlflow_ipfs.content.dag import DagWalk
from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS, Disk, free_bytes
from mlflow_ipfs.content.system.locking import try_flock
from mlflow_ipfs.errors import ConflictError, IntegrityError, InvalidDataError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID

DRAFT_SUFFIX: Final = ".mlflow-ipfs-partial"  # not used by other programs, so a draft may be overwritten
_READ_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class ExportedCar:
    """Result of the export of a CAR to a file.

    Attributes:
        size_bytes: size of the CAR in bytes.
        resumed_bytes: how many of these bytes an earlier export had written.
        dropped_bytes: how many other bytes the draft contained: an incomplete block, damage, or another CAR.
    """

    size_bytes: int
    resumed_bytes: int
    dropped_bytes: int


def draft_of(path: Path) -> Path:
    """Return the path of the draft of a CAR file."""
    return path.with_name(path.name + DRAFT_SUFFIX)


def export_car_file(
    reader: BlockReader,
    root: CID,
    path: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> ExportedCar:
    """Write every block of a DAG to a CAR file.

    A draft that an earlier export left is compared with the DAG, frame by frame. Blocks that match are not read from
    the store again. From the first difference on, the draft is rewritten. An interrupted export leaves its draft, so
    that the next export can resume it. A draft without blocks is removed.

    Args:
        reader: source of the blocks.
        root: root of the DAG.
        path: path of the CAR file.
        overwrite: whether to replace an existing file.
        progress: called with the length of each block in bytes, including the blocks in the draft.
        disk: performs the writes; replaced in tests.

    Raises:
        ConflictError: the path exists or is a directory, another export is writing the file, or the path of the draft
            is not a regular file with one link.
        NotFoundError, IntegrityError, InvalidDataError: a block is missing or damaged, or its links cannot be decoded.
        StoreFullError: the disk of the file is full.
    """
    disk = disk or Disk()
    if path.is_dir():
        msg = f"{str(path)!r} is a directory: name a file"
        raise ConflictError(msg)
    with _locked_draft(path) as descriptor:
        if not overwrite and os.path.lexists(path):
            msg = f"{str(path)!r} exists, so it was not written: name another file, or allow overwriting"
            raise ConflictError(msg)
        draft = _Draft(descriptor, root, disk)
        try:
            draft.write_all(reader, progress)
            disk.sync(descriptor)
            disk.rename(draft_of(path), path)
        except BaseException as error:
            if not draft.has_blocks:
                disk.remove(draft_of(path))
            if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
                raise _full_disk(path, draft) from error
            raise
        with suppress(OSError):  # not every file system can sync a directory
            disk.sync_directory(path.absolute().parent)
    return ExportedCar(draft.size_bytes, draft.resumed_bytes, draft.dropped_bytes)


@contextmanager
def _locked_draft(path: Path) -> Iterator[int]:
    """Open or create the draft under an exclusive lock. The kernel releases the lock when the process ends."""
    draft_path = draft_of(path)
    for _ in range(_ATTEMPTS):
        descriptor = _open_draft(draft_path)
        try:
            if not _try_lock(descriptor):
                msg = f"another export is writing {str(path)!r}: wait for it, or name another file"
                raise ConflictError(msg)
            if _is_at(descriptor, draft_path):  # else the draft was renamed or removed before it was locked
                yield descriptor
                return
        finally:
            os.close(descriptor)
    msg = f"other programs keep replacing the partial CAR of {str(path)!r}: end them, or name another file"
    raise ConflictError(msg)


def _open_draft(draft_path: Path) -> int:
    if os.path.lexists(draft_path):
        status = os.lstat(draft_path)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            msg = f"the path of a partial CAR, {str(draft_path)!r}, is not a regular file with one link: remove it"
            raise ConflictError(msg)
    return os.open(draft_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _try_lock(descriptor: int) -> bool:
    try:
        return try_flock(descriptor)
    except OSError:
        return True  # the file system does not support locks, so other exports cannot be detected


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _full_disk(path: Path, draft: _Draft) -> StoreFullError:
    msg = f"the disk of {str(path)!r} is full ({free_bytes(path.absolute().parent)} bytes free). Free disk space"
    if draft.has_blocks:
        msg += f", then export again to resume: {str(draft_of(path))!r} keeps what was written"
    return StoreFullError(msg)


class _Draft:
    """CAR that is being written.

    The existing content of the draft is read while it is valid and matches the DAG. The rest is written.

    Attributes:
        size_bytes: number of valid bytes, both existing and written.
        resumed_bytes: number of existing bytes that were valid.
        dropped_bytes: number of existing bytes that were dropped.
    """

    def __init__(self, descriptor: int, root: CID, disk: Disk) -> None:
        self._descriptor = descriptor
        self._root = root
        self._disk = disk
        self._header = encode_car_header([root])
        self._existing_bytes = os.fstat(descriptor).st_size
        self._existing: Iterator[tuple[CID, bytes]] | None = self._read_frames()  # None once the draft is written
        self.size_bytes = self.resumed_bytes = self.dropped_bytes = 0

    @property
    def has_blocks(self) -> bool:
        """Whether the draft contains blocks and is worth keeping."""
        if self._existing is not None:
            return self._existing_bytes > 0
        return self.size_bytes > len(self._header)

    def write_all(self, reader: BlockReader, progress: Callable[[int], None] | None) -> None:
        """Write the whole CAR, except for existing blocks that match."""
        walk = DagWalk(self._root)
        for cid in walk:
            block = cid.identity_data
            if block is None:
                block = self._take_existing(cid)
            if block is None:
                block = reader.get(cid)
                self._append(encode_car_block(cid, block))
            walk.descend(cid, block)
            if progress is not None:
                progress(len(block))
        self._stop_reading()

    def _take_existing(self, cid: CID) -> bytes | None:
        """Return the block from the draft if it is the next block there, else None."""
        if self._existing is None:
            return None
        next_cid, block = next(self._existing, (None, b""))
        if next_cid != cid:
            self._stop_reading()
            return None
        self.size_bytes += car_block_size(cid, len(block))
        return block

    def _read_frames(self) -> Iterator[tuple[CID, bytes]]:
        """Yield the blocks of the draft up to the first that is incomplete or damaged."""
        file = open(self._descriptor, "rb", buffering=_READ_BYTES, closefd=False)  # noqa: SIM115 - closefd is False
        if file.read(len(self._header)) != self._header:
            return
        self.size_bytes = len(self._header)
        with suppress(InvalidDataError, IntegrityError):
            yield from CarReader(file, CarPart(self.size_bytes))

    def _stop_reading(self) -> None:
        """Truncate the draft after its last valid byte, and switch from reading to writing."""
        if self._existing is None:
            return
        self._existing = None
        self.resumed_bytes, self.dropped_bytes = self.size_bytes, self._existing_bytes - self.size_bytes
        os.ftruncate(self._descriptor, self.size_bytes)
        os.lseek(self._descriptor, self.size_bytes, os.SEEK_SET)
        if not self.size_bytes:
            self._append(self._header)

    def _append(self, data: bytes) -> None:
        self._disk.write(self._descriptor, data)
        self.size_bytes += len(data)
