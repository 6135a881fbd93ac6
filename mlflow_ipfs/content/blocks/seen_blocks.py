"""Which blocks has a walk seen? Exact enough to trust, small enough for millions."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID

_SLOT_BYTES: Final = 16
_FIRST_SLOTS: Final = 1 << 10
_EMPTY: Final = bytes(_SLOT_BYTES)


class SeenBlocks:
    """A set of blocks, told apart by multihash and codec: 24 to 48 bytes each, and half as much again while it grows.

    A Python set of pairs takes about 190 bytes each. Here a block is a hash of 128 bits in a table with open
    addressing. The hash has a secret key of its own in every set, so nobody can make blocks of which two look the same
    or many fall on the same place; that it happens by itself among 2**40 blocks has the chance 2**-49.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._slots = _FIRST_SLOTS
        self._table = bytearray(self._slots * _SLOT_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, cid: CID) -> bool:
        """Add a block. Returns whether it is new."""
        name = self._digest(cid)
        at, is_there = self._find(name)
        if is_there:
            return False
        self._table[at : at + _SLOT_BYTES] = name
        self._count += 1
        if 3 * self._count > 2 * self._slots:
            self._grow()
        return True

    def __contains__(self, cid: CID) -> bool:
        return self._find(self._digest(cid))[1]

    def _digest(self, cid: CID) -> bytes:
        text = b"%x %b" % (cid.codec, cid.multihash)
        return hashlib.blake2b(text, digest_size=_SLOT_BYTES, key=self._key).digest()

    def _find(self, name: bytes) -> tuple[int, bool]:
        """The slot of a name, or the free slot where it would be; and whether it is there."""
        table, end = self._table, len(self._table)
        at = int.from_bytes(name[:8], "little") % self._slots * _SLOT_BYTES
        while (slot := table[at : at + _SLOT_BYTES]) != name:
            if slot == _EMPTY:
                return at, False
            at = (at + _SLOT_BYTES) % end
        return at, True

    def _grow(self) -> None:
        old, self._slots = self._table, 2 * self._slots
        self._table = bytearray(self._slots * _SLOT_BYTES)
        for at in range(0, len(old), _SLOT_BYTES):
            name = bytes(old[at : at + _SLOT_BYTES])
            if name != _EMPTY:
                to, _ = self._find(name)
                self._table[to : to + _SLOT_BYTES] = name
