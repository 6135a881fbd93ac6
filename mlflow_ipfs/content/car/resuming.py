"""A DAG as a CARv1 file: all of it under its name, or a draft beside it, which the next export goes on with."""

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

DRAFT_SUFFIX: Final = ".mlflow-ipfs-partial"  # no other program's, so a draft may be written over
_READ_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class ExportedCar:
    """A CAR that was written to a file.

    Attributes:
        size_bytes: its size.
        resumed_bytes: how many of them an earlier export had written.
        dropped_bytes: what a draft held besides: half a block, damage, or another CAR.
    """

    size_bytes: int
    resumed_bytes: int
    dropped_bytes: int


def draft_of(path: Path) -> Path:
    """Where the draft of a CAR file is."""
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
    """Write everything below a CID to a file.

    A draft that an earlier export left is read and compared with the DAG, frame by frame. What is the same is not read
    from the store again; from the first byte that is not, the draft is written anew. Whatever ends an export leaves the
    draft, so that the next one goes on; only a draft without a block is removed.

    Args:
        reader: where the blocks are.
        root: the root.
        path: the file.
        overwrite: whether it may be there already.
        progress: called with the length of each block, those in the draft among them.
        disk: takes what is written; for tests.

    Raises:
        ConflictError: the file is there or is a directory, or another export is writing it, or something odd has the draft's name.
        NotFoundError, IntegrityError, InvalidDataError: a block cannot be had, or its links cannot be known.
        StoreFullError: the disk under the file is full.
    """
    disk = disk or Disk()
    if path.is_dir():
        msg = f"{str(path)!r} is a directory; name a file"
        raise ConflictError(msg)
    with _locked_draft(path) as descriptor:
        if not overwrite and os.path.lexists(path):
            msg = f"{str(path)!r} exists, so it was not written"
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
    """Open the draft, or make it, so that nobody else writes it; the lock dies with the process."""
    name = draft_of(path)
    for _ in range(_ATTEMPTS):
        descriptor = _open_draft(name)
        try:
            if not _try_lock(descriptor):
                msg = f"another export is writing {str(path)!r}: wait for it, or name another file"
                raise ConflictError(msg)
            if _is_at(descriptor, name):  # else it became the CAR, or was removed, before it was locked
                yield descriptor
                return
        finally:
            os.close(descriptor)
    msg = f"{str(name)!r} comes and goes: end the other programs that write {str(path)!r}"
    raise ConflictError(msg)


def _open_draft(name: Path) -> int:
    if os.path.lexists(name) and (not stat.S_ISREG(os.lstat(name).st_mode) or os.lstat(name).st_nlink > 1):
        msg = f"{str(name)!r} is in the way: it has the name of a draft and is no file of its own; remove it"
        raise ConflictError(msg)
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _try_lock(descriptor: int) -> bool:
    try:
        return try_flock(descriptor)
    except OSError:
        return True  # a file system without locks: nobody can be seen there


def _is_at(descriptor: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(name))
    except FileNotFoundError:
        return False


def _full_disk(path: Path, draft: _Draft) -> StoreFullError:
    msg = f"the disk under {str(path)!r} is full ({free_bytes(path.absolute().parent)} bytes free). Make room"
    if draft.has_blocks:
        msg += f", and export again: {str(draft_of(path))!r} keeps what was written, and is continued"
    return StoreFullError(msg)


class _Draft:
    """A CAR that is being written: first read, as far as it is there and right, then continued.

    Attributes:
        size_bytes: how many bytes of it are there and right.
        resumed_bytes: how many of them were there before.
        dropped_bytes: how many others were, and are gone.
    """

    def __init__(self, descriptor: int, root: CID, disk: Disk) -> None:
        self._descriptor = descriptor
        self._root = root
        self._disk = disk
        self._header = encode_car_header([root])
        self._found_bytes = os.fstat(descriptor).st_size
        self._found: Iterator[tuple[CID, bytes]] | None = self._read_frames()
        self.size_bytes = self.resumed_bytes = self.dropped_bytes = 0

    @property
    def has_blocks(self) -> bool:
        """Whether the draft is worth keeping."""
        if self._found is not None:
            return self._found_bytes > 0
        return self.size_bytes > len(self._header)

    def write_all(self, reader: BlockReader, progress: Callable[[int], None] | None) -> None:
        """Write the whole CAR, but for what is there."""
        walk = DagWalk(self._root)
        for cid in walk:
            block = cid.identity_data
            if block is None:
                block = self._take_found(cid)
            if block is None:
                block = reader.get(cid)
                self._append(encode_car_block(cid, block))
            walk.descend(cid, block)
            if progress is not None:
                progress(len(block))
        self._stop_reading()

    def _take_found(self, cid: CID) -> bytes | None:
        """The block from the draft, if it is the one that comes next there."""
        if self._found is None:
            return None
        found, block = next(self._found, (None, b""))
        if found != cid:
            self._stop_reading()
            return None
        self.size_bytes += car_block_size(cid, len(block))
        return block

    def _read_frames(self) -> Iterator[tuple[CID, bytes]]:
        """The draft's blocks, up to the first that is not whole or not right."""
        file = open(self._descriptor, "rb", buffering=_READ_BYTES, closefd=False)  # noqa: SIM115 - it closes nothing
        if file.read(len(self._header)) != self._header:
            return
        self.size_bytes = len(self._header)
        with suppress(InvalidDataError, IntegrityError):
            yield from CarReader(file, CarPart(self.size_bytes))

    def _stop_reading(self) -> None:
        """Cut off what does not belong there; from now on the draft is written."""
        if self._found is None:
            return
        self._found = None
        self.resumed_bytes, self.dropped_bytes = self.size_bytes, self._found_bytes - self.size_bytes
        os.ftruncate(self._descriptor, self.size_bytes)
        os.lseek(self._descriptor, self.size_bytes, os.SEEK_SET)
        if not self.size_bytes:
            self._append(self._header)

    def _append(self, data: bytes) -> None:
        self._disk.write(self._descriptor, data)
        self.size_bytes += len(data)
