"""MurmurHash3 x64 128, first half: the hash that determines the slot of a name in a HAMT directory.

Not for verification, because it is not a cryptographic hash. Source: https://github.com/aappleby/smhasher
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_C1: Final = 0x87C3_7B91_1142_53D5
_C2: Final = 0x4CF5_AD43_2745_937F


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _mix_k1(k1: int) -> int:
    return _rotate(k1 * _C1 & _MASK, 31) * _C2 & _MASK


def _mix_k2(k2: int) -> int:
    return _rotate(k2 * _C2 & _MASK, 33) * _C1 & _MASK


def _finalize(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51_AFD7_ED55_8CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CE_B9FE_1A85_EC53 & _MASK
    return value ^ value >> 33


def murmur3_x64_64(data: bytes) -> int:
    """Return the first 64 of the 128 bits of the hash with seed 0, as a number."""
    h1 = h2 = 0
    tail_start = len(data) & ~15
    for start in range(0, tail_start, 16):
        h1 ^= _mix_k1(int.from_bytes(data[start : start + 8], "little"))
        h1 = ((_rotate(h1, 27) + h2) * 5 + 0x52DC_E729) & _MASK
        h2 ^= _mix_k2(int.from_bytes(data[start + 8 : start + 16], "little"))
        h2 = ((_rotate(h2, 31) + h1) * 5 + 0x3849_5AB5) & _MASK
    h1 ^= _mix_k1(int.from_bytes(data[tail_start : tail_start + 8], "little"))
    h2 ^= _mix_k2(int.from_bytes(data[tail_start + 8 :], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    return (_finalize(h1) + _finalize(h2)) & _MASK


def murmur3_x64_64_many(names: Sequence[bytes]) -> list[int]:
    """Return ``murmur3_x64_64`` of each name. Several times faster for a hundred names or more.

    One large integer contains a 64-bit number for every name, in lanes of 128 bits. Each step of the hash is then one
    operation of Python's integers for all names. The upper half of a lane takes the carry of a step.
    """
    groups: dict[int, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(len(name) >> 4, []).append(index)
    if len(groups) == 1:
        return _hash_lanes(names, next(iter(groups)))
    hashes = [0] * len(names)
    for blocks, indexes in groups.items():
        for index, value in zip(indexes, _hash_lanes([names[index] for index in indexes], blocks), strict=True):
            hashes[index] = value
    return hashes


def _hash_lanes(names: Sequence[bytes], blocks: int) -> list[int]:
    """Return the hashes of names that all have the same number of whole blocks of 16 bytes."""
    ones = int.from_bytes(b"\1".ljust(16, b"\0") * len(names), "little")
    mask = ones * _MASK

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    def mix(value: int, first: int, bits: int, second: int) -> int:
        return rotate(value * first & mask, bits) * second & mask

    def finalize(value: int) -> int:
        value ^= value >> 33 & mask
        value = value * 0xFF51_AFD7_ED55_8CCD & mask
        value ^= value >> 33 & mask
        value = value * 0xC4CE_B9FE_1A85_EC53 & mask
        return value ^ value >> 33 & mask

    h1 = h2 = 0
    for start in range(0, 16 * blocks, 16):
        both = _join(name[start : start + 16] for name in names)
        h1 ^= mix(both & mask, _C1, 31, _C2)
        h1 = ((rotate(h1, 27) + h2 & mask) * 5 + ones * 0x52DC_E729) & mask
        h2 ^= mix(both >> 64 & mask, _C2, 33, _C1)
        h2 = ((rotate(h2, 31) + h1 & mask) * 5 + ones * 0x3849_5AB5) & mask
    both = _join(name[16 * blocks :].ljust(16, b"\0") for name in names)
    lengths = _join(len(name).to_bytes(16, "little") for name in names)
    h1 ^= mix(both & mask, _C1, 31, _C2) ^ lengths
    h2 ^= mix(both >> 64 & mask, _C2, 33, _C1) ^ lengths
    h1 = h1 + h2 & mask
    h2 = h2 + h1 & mask
    hashes = finalize(h1) + finalize(h2) & mask
    return list(struct.unpack(f"<{2 * len(names)}Q", hashes.to_bytes(16 * len(names), "little"))[::2])


def _join(lanes: Iterable[bytes]) -> int:
    return int.from_bytes(b"".join(lanes), "little")
