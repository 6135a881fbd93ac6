"""MurmurHash3 x64 128, first half: where HAMT folders put a name.

Not for verification: it is no cryptographic hash. Source: https://github.com/aappleby/smhasher
"""

from __future__ import annotations

from typing import Final

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
    """Hash with seed 0; returns the first 64 of the 128 bits as a number."""
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
