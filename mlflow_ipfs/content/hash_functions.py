"""Hash functions of multihashes: those that blocks are verified with, and the names of the others.

Source: https://github.com/multiformats/multicodec/blob/master/table.csv
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


# Multihash code -> function that returns the digest of data. Only hash functions that are collision resistant.
HASHES: Final[dict[int, Callable[[bytes], bytes]]] = {
    0x12: lambda data: hashlib.sha256(data).digest(),
    0x13: lambda data: hashlib.sha512(data).digest(),
    0x14: lambda data: hashlib.sha3_512(data).digest(),
    0x15: lambda data: hashlib.sha3_384(data).digest(),
    0x16: lambda data: hashlib.sha3_256(data).digest(),
    0x20: lambda data: hashlib.sha384(data).digest(),
    0xB220: lambda data: hashlib.blake2b(data, digest_size=32).digest(),
    0xB240: lambda data: hashlib.blake2b(data, digest_size=64).digest(),
    0xB260: lambda data: hashlib.blake2s(data).digest(),
}

DIGEST_BYTES: Final = {code: len(function(b"")) for code, function in HASHES.items()}

_NAMES: Final = {
    0x00: "identity",
    0x11: "sha1",
    0x12: "sha2-256",
    0x13: "sha2-512",
    0x14: "sha3-512",
    0x15: "sha3-384",
    0x16: "sha3-256",
    0x17: "sha3-224",
    0x18: "shake-128",
    0x19: "shake-256",
    0x1A: "keccak-224",
    0x1B: "keccak-256",
    0x1C: "keccak-384",
    0x1D: "keccak-512",
    0x1E: "blake3",
    0x20: "sha2-384",
    0x22: "murmur3-x64-64",
    0x23: "murmur3-32",
    0x56: "dbl-sha2-256",
    0xD4: "md4",
    0xD5: "md5",
    0x1012: "sha2-256-trunc254-padded",
    0x1013: "sha2-224",
    0x1014: "sha2-512-224",
    0x1015: "sha2-512-256",
    0x1052: "ripemd-128",
    0x1053: "ripemd-160",
    0x1054: "ripemd-256",
    0x1055: "ripemd-320",
    0xB401: "poseidon-bls12_381-a2-fc1",
}
# Families of hash functions with one code for each digest length, in steps of 8 bits.
_FAMILIES: Final = (
    (range(0xB201, 0xB241), "blake2b"),
    (range(0xB241, 0xB261), "blake2s"),
    (range(0xB301, 0xB321), "skein256"),
    (range(0xB321, 0xB361), "skein512"),
    (range(0xB361, 0xB3E1), "skein1024"),
)


def hash_name(code: int) -> str:
    """Return the name of a hash function with its code, ``blake3 (0x1e)``; for an unknown function the code alone."""
    name = _bare_name(code)
    return f"0x{code:x}" if name is None else f"{name} (0x{code:x})"


def is_known(code: int) -> bool:
    """Return whether the name of a hash function is known. A CID with an unknown one is most likely mistyped."""
    return _bare_name(code) is not None


def _bare_name(code: int) -> str | None:
    of_family = (f"{name}-{8 * (code - codes.start + 1)}" for codes, name in _FAMILIES if code in codes)
    return _NAMES.get(code) or next(of_family, None)


def explain_unsupported(code: int) -> str:
    """Return the part of a message that says why a CID with this hash function cannot be used."""
    supported = ", ".join(_bare_name(known) or "" for known in HASHES)
    return f"its hash function {hash_name(code)} is not supported; supported are {supported}"
