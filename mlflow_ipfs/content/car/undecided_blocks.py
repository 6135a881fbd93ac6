"""Blocks of a CAR of which nothing yet says whether they are needed, until the nodes above them have arrived.

A CAR written depth first has none. Of one that begins with its leaves, nearly all blocks wait here. Only positions
are kept in memory: 42 to 84 bytes a block. A block stays in the CAR itself if that is a regular file, else it is
copied to a nameless file of the storage's disk.
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
_TAKEN: Final = (1 << 64) - 1
_EMPTY: Final = bytes(_SLOT.size)


class _Place(NamedTuple):
    """Where a frame is: which of the open files, and at which byte."""

    source: int
    position: int


@dataclass(frozen=True, slots=True)
class CarFile:
    """The file of a CAR, held open: its blocks need no copy.

    Attributes:
        source: its number among the sources.
        start: at which byte of the file the CAR starts.
    """

    source: int
    start: int

    def place_of(self, offset: int) -> _Place:
        """Return the place of the frame at a byte of the CAR."""
        return _Place(self.source, self.start + offset)


class _Places:
    """A table of places by multihash, as ``SeenBlocks`` is one of names."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._slots = _FIRST_SLOTS
        self._table = bytearray(self._slots * _SLOT.size)
        self._used = 0

    def add(self, multihash: bytes, place: _Place) -> bool:
        """Add a place. Returns whether the multihash is new, or had been taken."""
        name = self._name(multihash)
        at = self._find(name)
        is_new = self._table[at : at + _SLOT.size] == _EMPTY
        if not is_new and _SLOT.unpack_from(self._table, at)[2] != _TAKEN:
            return False
        _SLOT.pack_into(self._table, at, name, *place)
        self._used += is_new
        if 3 * self._used > 2 * self._slots:
            self._grow()
        return True

    def find(self, multihash: bytes) -> _Place | None:
        """Return the place of a block that was not taken."""
        at = self._find(self._name(multihash))
        if self._table[at : at + _SLOT.size] == _EMPTY:
            return None
        _, source, position = _SLOT.unpack_from(self._table, at)
        return None if position == _TAKEN else _Place(source, position)

    def take(self, multihash: bytes) -> None:
        """Forget the place of a block that is there."""
        name = self._name(multihash)
        _SLOT.pack_into(self._table, self._find(name), name, 0, _TAKEN)

    def __iter__(self) -> Iterator[_Place]:
        """Yield the places, in the order of the files."""
        slots = _SLOT.iter_unpack(bytes(self._table))
        for place in sorted(
            source << 64 | at for name, source, at in slots if name != bytes(_KEY_BYTES) and at != _TAKEN
        ):
            yield _Place(place >> 64, place & _TAKEN)

    def _name(self, multihash: bytes) -> bytes:
        return hashlib.blake2b(multihash, digest_size=_KEY_BYTES, key=self._key).digest()

    def _find(self, name: bytes) -> int:
        """The slot of a name, or the empty one where it would go."""
        table, end = self._table, len(self._table)
        at = int.from_bytes(name[:8], "little") % self._slots * _SLOT.size
        while table[at : at + _KEY_BYTES] != name and table[at : at + _SLOT.size] != _EMPTY:
            at = (at + _SLOT.size) % end
        return at

    def _grow(self) -> None:
        old, self._slots = self._table, 2 * self._slots
        self._table = bytearray(self._slots * _SLOT.size)
        for at in range(0, len(old), _SLOT.size):
            slot = bytes(old[at : at + _SLOT.size])
            if slot != _EMPTY:
                to = self._find(slot[:_KEY_BYTES])
                self._table[to : to + _SLOT.size] = slot


class UndecidedBlocks:
    """The undecided blocks of one import. A context manager.

    Args:
        make_directory: gives a private directory for the copies.

    Attributes:
        count: how many blocks wait.
        size_bytes: how many bytes they have.
    """

    def __init__(self, make_directory: Callable[[], Path]) -> None:
        self._make_directory = make_directory
        self._places = _Places()
        self._sources: list[int] = []  # descriptors; the files of CARs have their bytes where the CAR has them
        self._copies: int | None = None
        self._copied_bytes = 0
        self.count = 0
        self.size_bytes = 0

    def close(self) -> None:
        """Drop the blocks."""
        sources, self._sources, self._copies = self._sources, [], None
        for descriptor in sources:
            os.close(descriptor)
        self._places, self.count, self.size_bytes = _Places(), 0, 0

    def open_source(self, file: BinaryIO, offset: int) -> CarFile | None:
        """Hold the file of a CAR open; None if it is another stream, whose blocks have to be copied.

        Args:
            file: the stream.
            offset: which byte of the CAR comes next in it.
        """
        raw = file.raw if type(file) is io.BufferedReader else file
        # Exactly these classes: what reads a compressed file has the descriptor of the file, but other bytes.
        if type(raw) is not io.FileIO or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return None
        self._sources.append(os.dup(raw.fileno()))  # it stays readable after the caller has closed it
        return CarFile(len(self._sources) - 1, file.tell() - offset)

    def add(self, cid: CID, block: bytes, place: _Place | None) -> None:
        """Add a verified block.

        Args:
            cid: its CID.
            block: its bytes.
            place: where its frame is in a ``CarFile``; None to copy it.

        Raises:
            InvalidDataError: there are too many.
            StoreFullError: there is no room for the copy.
        """
        if cid.identity_data is not None or self._places.find(cid.multihash) is not None:
            return
        if self.count >= MAX_BLOCKS or (place is None and self._copied_bytes + len(block) > MAX_COPIED_BYTES):
            msg = (
                f"{self.count:,} blocks ({self.size_bytes:,} bytes) came before any node that links to them, more than can "
                "be put aside: import the CAR from a file, or take all blocks of it, needed or not (--all-blocks)"
            )
            raise InvalidDataError(msg)
        self._places.add(cid.multihash, place or self._copy(cid, block))
        self.count += 1
        self.size_bytes += len(block)

    def __contains__(self, cid: CID) -> bool:
        return bool(self.count) and self._places.find(cid.multihash) is not None

    def take(self, cid: CID) -> bytes:
        """Return a block that is there, and drop it.

        Raises:
            IntegrityError: the CAR's file was changed meanwhile.
        """
        place = self._places.find(cid.multihash)
        assert place is not None
        _, block = self._read(place)
        if not cid.matches(block):
            raise _changed()
        self._places.take(cid.multihash)
        self.count -= 1
        self.size_bytes -= len(block)
        return block

    def drop(self, cid: CID) -> None:
        """Drop a block if it is there: it came once more, and is decided."""
        if cid in self:
            self.take(cid)

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        """Yield the blocks that wait, in the order in which they came.

        Raises:
            IntegrityError: a CAR's file was changed meanwhile.
        """
        for place in self._places:
            cid, block = self._read(place)
            if not cid.matches(block):
                raise _changed()
            yield cid, block

    def _read(self, place: _Place) -> tuple[CID, bytes]:
        descriptor = self._sources[place.source]
        try:
            length, start = decode_varint(os.pread(descriptor, MAX_VARINT_BYTES, place.position))
            frame = os.pread(descriptor, length, place.position + start)
            cid, end = CID.decode(frame)
        except (InvalidDataError, ValueError) as error:
            raise _changed() from error
        return cid, frame[end:]

    def _copy(self, cid: CID, block: bytes) -> _Place:
        try:
            if self._copies is None:
                self._copies = self._open_copies()
                self._sources.append(self._copies)
            frame = memoryview(encode_car_block(cid, block))
            place = _Place(self._sources.index(self._copies), self._copied_bytes)
            while frame:
                written = os.pwrite(self._copies, frame, self._copied_bytes)
                frame = frame[written:]
                self._copied_bytes += written
        except OSError as error:
            if error.errno in FULL_DISK_ERRORS or error.errno == errno.EFBIG:
                msg = (
                    f"the disk has no room for the {self.count:,} blocks of the CAR that wait for the nodes above them"
                )
                raise StoreFullError(msg) from error
            raise
        return place

    def _open_copies(self) -> int:
        directory = self._make_directory()
        path = directory / "undecided"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()  # the bytes go with the descriptor, whatever ends the process
        directory.rmdir()
        return descriptor


def _changed() -> IntegrityError:
    return IntegrityError("the file of the CAR was changed while it was imported: import it again")
