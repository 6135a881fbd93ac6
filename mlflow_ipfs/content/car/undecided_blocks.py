"""Undecided blocks of a CAR: blocks that arrived before any node that links to them.

A CAR that was written depth first has no such blocks. In a CAR that starts with its leaves, nearly all blocks are
undecided. Only positions are kept in memory: 42 to 84 bytes a block. If the CAR is a regular file, the blocks are read
from it again. Otherwise they are copied to an unlinked file on the disk of the storage.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from mlflow_ipfs.content.car.format import encode_car_block
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS
from mlflow_ipfs.content.varint import MAX_VARINT_BYTES, decode_varint
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_BLOCKS: Final = 1 << 22
MAX_COPIED_BYTES: Final = 10 << 30

_KEY_BYTES: Final = 16
_SLOT: Final = struct.Struct(f"<{_KEY_BYTES}sIQ")  # key, source, position
_FIRST_SLOTS: Final = 1 << 10
_MAX_POSITION: Final = (1 << 64) - 1
_REMOVED: Final = _MAX_POSITION  # position of an entry that was removed
_EMPTY: Final = bytes(_SLOT.size)


class _FrameLocation(NamedTuple):
    """Location of a frame: the number of an open file, and the offset in it in bytes."""

    source: int
    position: int


@dataclass(frozen=True, slots=True)
class CarFile:
    """Open regular file of a CAR, whose blocks need not be copied.

    Attributes:
        source: number of the file among the open files.
        start: offset at which the CAR starts in the file, in bytes.
    """

    source: int
    start: int

    def locate(self, offset: int) -> _FrameLocation:
        """Return the location of the frame at an offset in the CAR."""
        return _FrameLocation(self.source, self.start + offset)


class _FrameTable:
    """Hash table of frame locations by multihash, with open addressing like ``SeenBlocks``."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._slots = _FIRST_SLOTS
        self._table = bytearray(self._slots * _SLOT.size)
        self._used = 0

    def add(self, multihash: bytes, location: _FrameLocation) -> bool:
        """Add a location. Return whether the multihash was not in the table, or had been removed."""
        key = self._hash_key(multihash)
        at = self._find_slot(key)
        is_new = self._table[at : at + _SLOT.size] == _EMPTY
        if not is_new and _SLOT.unpack_from(self._table, at)[2] != _REMOVED:
            return False
        _SLOT.pack_into(self._table, at, key, *location)
        self._used += is_new
        if 3 * self._used > 2 * self._slots:
            self._grow()
        return True

    def find(self, multihash: bytes) -> _FrameLocation | None:
        """Return the location of a block, or None if it is not in the table."""
        at = self._find_slot(self._hash_key(multihash))
        if self._table[at : at + _SLOT.size] == _EMPTY:
            return None
        _, source, position = _SLOT.unpack_from(self._table, at)
        return None if position == _REMOVED else _FrameLocation(source, position)

    def remove(self, multihash: bytes) -> None:
        """Remove a block that is in the table."""
        key = self._hash_key(multihash)
        _SLOT.pack_into(self._table, self._find_slot(key), key, 0, _REMOVED)

    def __iter__(self) -> Iterator[_FrameLocation]:
        """Yield the locations in the order of the files and of the positions in them."""
        slots = _SLOT.iter_unpack(bytes(self._table))
        for combined in sorted(
            source << 64 | at for key, source, at in slots if key != bytes(_KEY_BYTES) and at != _REMOVED
        ):
            yield _FrameLocation(combined >> 64, combined & _MAX_POSITION)

    def _hash_key(self, multihash: bytes) -> bytes:
        return hashlib.blake2b(multihash, digest_size=_KEY_BYTES, key=self._key).digest()

    def _find_slot(self, key: bytes) -> int:
        """Return the offset of the slot of a key, or of the empty slot where it belongs."""
        table, end = self._table, len(self._table)
        at = int.from_bytes(key[:8], "little") % self._slots * _SLOT.size
        while table[at : at + _KEY_BYTES] != key and table[at : at + _SLOT.size] != _EMPTY:
            at = (at + _SLOT.size) % end
        return at

    def _grow(self) -> None:
        old, self._slots = self._table, 2 * self._slots
        self._table = bytearray(self._slots * _SLOT.size)
        for at in range(0, len(old), _SLOT.size):
            slot = bytes(old[at : at + _SLOT.size])
            if slot != _EMPTY:
                to = self._find_slot(slot[:_KEY_BYTES])
                self._table[to : to + _SLOT.size] = slot


class UndecidedBlocks:
    """Undecided blocks of one import.

    Args:
        make_directory: creates a private directory for the copies.

    Attributes:
        count: number of undecided blocks.
        size_bytes: their total size in bytes.
    """

    def __init__(self, make_directory: Callable[[], Path]) -> None:
        self._make_directory = make_directory
        self._frames = _FrameTable()
        self._sources: list[int] = []  # descriptors of the CAR files and of the file of copies
        self._copies: int | None = None
        self._copied_bytes = 0
        self.count = 0
        self.size_bytes = 0

    def close(self) -> None:
        """Drop all blocks and close the files."""
        sources, self._sources, self._copies = self._sources, [], None
        for descriptor in sources:
            os.close(descriptor)
        self._frames, self.count, self.size_bytes = _FrameTable(), 0, 0

    def open_source(self, file: BinaryIO, offset: int) -> CarFile | None:
        """Keep the file of a CAR open. Return None if the stream is not a regular file: its blocks must be copied.

        Args:
            file: stream of the CAR.
            offset: offset in the CAR of the next byte of the stream.
        """
        raw = file.raw if type(file) is io.BufferedReader else file
        # Exactly these classes: a reader of a compressed file has the same descriptor, but returns other bytes.
        if type(raw) is not io.FileIO or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return None
        self._sources.append(os.dup(raw.fileno()))  # readable after the caller has closed the file
        return CarFile(len(self._sources) - 1, file.tell() - offset)

    def add(self, cid: CID, block: bytes, location: _FrameLocation | None) -> None:
        """Add a verified block.

        Args:
            cid: CID of the block.
            block: data of the block.
            location: location of its frame in a ``CarFile``, or None to copy the block.

        Raises:
            InvalidDataError: there are too many undecided blocks.
            StoreFullError: the disk is full, so the block cannot be copied.
        """
        if cid.identity_data is not None or self._frames.find(cid.multihash) is not None:
            return
        if self.count >= MAX_BLOCKS or (location is None and self._copied_bytes + len(block) > MAX_COPIED_BYTES):
            msg = (
                f"{self.count:,} blocks ({self.size_bytes:,} bytes) came before any node that links to them, which is "
                "the limit: import the CAR from a file, or import all of its blocks, needed or not (--all-blocks)"
            )
            raise InvalidDataError(msg)
        self._frames.add(cid.multihash, location or self._copy(cid, block))
        self.count += 1
        self.size_bytes += len(block)

    def __contains__(self, cid: CID) -> bool:
        return bool(self.count) and self._frames.find(cid.multihash) is not None

    def take(self, cid: CID) -> bytes:
        """Return a block that was added, and remove it.

        Raises:
            IntegrityError: the file of the CAR was changed during the import.
        """
        location = self._frames.find(cid.multihash)
        assert location is not None
        _, block = self._read(location)
        if not cid.matches(block):
            raise _car_changed()
        self._frames.remove(cid.multihash)
        self.count -= 1
        self.size_bytes -= len(block)
        return block

    def drop(self, cid: CID) -> None:
        """Drop a block if it was added. Called when the block arrives again and is known to be needed."""
        if cid in self:
            self.take(cid)

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        """Yield the blocks in the order in which they arrived.

        Raises:
            IntegrityError: the file of a CAR was changed during the import.
        """
        for location in self._frames:
            cid, block = self._read(location)
            if not cid.matches(block):
                raise _car_changed()
            yield cid, block

    def _read(self, location: _FrameLocation) -> tuple[CID, bytes]:
        descriptor = self._sources[location.source]
        try:
            length, start = decode_varint(os.pread(descriptor, MAX_VARINT_BYTES, location.position))
            frame = os.pread(descriptor, length, location.position + start)
            cid, end = CID.decode(frame)
        except (InvalidDataError, ValueError) as error:
            raise _car_changed() from error
        return cid, frame[end:]

    def _copy(self, cid: CID, block: bytes) -> _FrameLocation:
        try:
            if self._copies is None:
                self._copies = self._open_copies()
                self._sources.append(self._copies)
            frame = memoryview(encode_car_block(cid, block))
            location = _FrameLocation(self._sources.index(self._copies), self._copied_bytes)
            while frame:
                written = os.pwrite(self._copies, frame, self._copied_bytes)
                frame = frame[written:]
                self._copied_bytes += written
        except OSError as error:
            if error.errno in FULL_DISK_ERRORS or error.errno == errno.EFBIG:
                msg = (
                    f"the disk is full after copying {self.count:,} blocks of the CAR that came before any node that "
                    "links to them: free disk space, or import the CAR from a file"
                )
                raise StoreFullError(msg) from error
            raise
        return location

    def _open_copies(self) -> int:
        directory = self._make_directory()
        path = directory / "undecided"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()  # the kernel frees the data when the descriptor is closed, even if the process crashes
        directory.rmdir()
        return descriptor


def _car_changed() -> IntegrityError:
    return IntegrityError("the file of the CAR was changed while it was imported: import it again")
