"""Compact set of the blocks that a walk has visited, for millions of blocks."""

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
    """A set of blocks, identified by multihash and codec. Takes 24 to 48 bytes per block, 50 % more while it grows.

    A Python set of pairs takes about 190 bytes per block. Here a block is a 128-bit hash in a table with open
    addressing. Every set has its own secret hash key, so an attacker cannot construct blocks whose hashes are equal,
    or fall into the same slots. An accidental collision among 2**40 blocks has a probability of 2**-49.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._slots = _FIRST_SLOTS
        self._table = bytearray(self._slots * _SLOT_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, cid: CID) -> bool:
        """Add a block. Return whether it is new."""
        digest = self._digest(cid)
        offset, is_present = self._find(digest)
        if is_present:
            return False
        self._table[offset : offset + _SLOT_BYTES] = digest
        self._count += 1
        if 3 * self._count > 2 * self._slots:
            self._grow()
        return True

    def __contains__(self, cid: CID) -> bool:
        return self._find(self._digest(cid))[1]

    def _digest(self, cid: CID) -> bytes:
        text = b"%x %b" % (cid.codec, cid.multihash)
        return hashlib.blake2b(text, digest_size=_SLOT_BYTES, key=self._key).digest()

    def _find(self, digest: bytes) -> tuple[int, bool]:
        """Return the offset of a digest, or of the free slot for it; and whether the digest is present."""
        table, end = self._table, len(self._table)
        offset = int.from_bytes(digest[:8], "little") % self._slots * _SLOT_BYTES
        while (slot := table[offset : offset + _SLOT_BYTES]) != digest:
            if slot == _EMPTY:
                return offset, False
            offset = (offset + _SLOT_BYTES) % end
        return offset, True

    def _grow(self) -> None:
        old, self._slots = self._table, 2 * self._slots
        self._table = bytearray(self._slots * _SLOT_BYTES)
        for old_offset in range(0, len(old), _SLOT_BYTES):
            digest = bytes(old[old_offset : old_offset + _SLOT_BYTES])
            if digest != _EMPTY:
                offset, _ = self._find(digest)
                self._table[offset : offset + _SLOT_BYTES] = digest
