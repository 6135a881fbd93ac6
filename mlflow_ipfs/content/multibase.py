"""Multibase text of CIDs, in all bases that Kubo prints except base256emoji.

Decoding is strict: a CID has exactly one text in each base.
Source: https://github.com/multiformats/multibase
"""

from __future__ import annotations

import base64
from typing import Final

from mlflow_ipfs.errors import InvalidCIDError

_DIGITS: Final = "0123456789"
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = _LOWER.upper()
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# Prefix -> digits of a base that encodes the bytes as one large number.
_POSITIONAL: Final = {
    "z": _BASE58,
    "Z": "123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ",  # base58flickr
    "k": _DIGITS + _LOWER,
    "K": _DIGITS + _UPPER,
}

# Prefix -> digits of a base that encodes a fixed number of bits per digit (RFC 4648), and whether '=' pads the text.
_BITWISE: Final = {
    "0": ("01", False),
    "f": (_DIGITS + "abcdef", False),
    "F": (_DIGITS + "ABCDEF", False),
    "b": (_LOWER + "234567", False),
    "B": (_UPPER + "234567", False),
    "c": (_LOWER + "234567", True),
    "C": (_UPPER + "234567", True),
    "v": (_DIGITS + _LOWER[:22], False),
    "V": (_DIGITS + _UPPER[:22], False),
    "t": (_DIGITS + _LOWER[:22], True),
    "T": (_DIGITS + _UPPER[:22], True),
    "m": (_UPPER + _LOWER + _DIGITS + "+/", False),
    "M": (_UPPER + _LOWER + _DIGITS + "+/", True),
    "u": (_UPPER + _LOWER + _DIGITS + "-_", False),
    "U": (_UPPER + _LOWER + _DIGITS + "-_", True),
}


def _encode_positional(data: bytes, alphabet: str) -> str:
    zeros = len(data) - len(data.lstrip(b"\0"))
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, rest = divmod(number, len(alphabet))
        digits.append(alphabet[rest])
    return alphabet[0] * zeros + "".join(reversed(digits))


def _read_number(text: str, alphabet: str) -> int:
    number = 0
    for char in text:
        digit = alphabet.find(char)
        if digit < 0:
            msg = f"{char!r} is not a digit of base {len(alphabet)}"
            raise InvalidCIDError(msg)
        number = number * len(alphabet) + digit
    return number


def _decode_positional(text: str, alphabet: str) -> bytes:
    number = _read_number(text, alphabet)
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _decode_bitwise(text: str, alphabet: str, *, is_padded: bool) -> bytes:
    bits = len(alphabet).bit_length() - 1
    digits = text.rstrip("=") if is_padded else text
    spare = len(digits) * bits % 8
    number = _read_number(digits, alphabet)
    quantum = 8 if bits == 5 else 4  # the number of digits is padded to a multiple of this
    padding = -len(digits) % quantum if is_padded else 0
    if spare >= bits or number & ((1 << spare) - 1) or len(text) != len(digits) + padding:
        msg = f"{text!r} is not the canonical form of any bytes in base {len(alphabet)}"
        raise InvalidCIDError(msg)
    return (number >> spare).to_bytes(len(digits) * bits // 8, "big")


def encode_base58(data: bytes) -> str:
    """Encode bytes as base58btc without a multibase prefix, the text form of a CIDv0."""
    return _encode_positional(data, _BASE58)


def decode_base58(text: str) -> bytes:
    """Decode base58btc without a multibase prefix."""
    return _decode_positional(text, _BASE58)


def encode_base32(data: bytes) -> str:
    """Encode bytes as lower-case base32 (RFC 4648) without padding and without the multibase prefix ``b``."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def decode_multibase(text: str) -> bytes:
    """Decode multibase text, whose first character names the base.

    Raises:
        InvalidCIDError: the base is unknown, a character is not a digit of it, or the text is not canonical.
    """
    prefix, body = text[:1], text[1:]
    if prefix in _POSITIONAL:
        return _decode_positional(body, _POSITIONAL[prefix])
    if prefix in _BITWISE:
        alphabet, is_padded = _BITWISE[prefix]
        return _decode_bitwise(body, alphabet, is_padded=is_padded)
    msg = f"{text!r} starts with an unknown multibase prefix {prefix!r} (a CIDv1 usually starts with 'b')"
    raise InvalidCIDError(msg)
