"""dag-cbor: the IPLD codec for structured data, strict in both directions.

A value has exactly one encoding: numbers in their shortest form, floats of 64 bits, map keys that are strings sorted
by length and then by bytes, definite lengths, and no tag except 42 for CIDs.
Source: https://ipld.io/specs/codecs/dag-cbor/spec/
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, NoReturn

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

Value = Any  # None | bool | int | float | str | bytes | CID | list[Value] | dict[str, Value]

MAX_DEPTH: Final = 128
_CID_TAG: Final = 42
_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)


def encode_dagcbor(value: Value) -> bytes:
    """Encode a value.

    Raises:
        InvalidDataError: dag-cbor cannot represent the value or a part of it.
    """
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def _encode(value: Value, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        msg = f"a dag-cbor value is nested deeper than {MAX_DEPTH} levels"
        raise InvalidDataError(msg)
    if isinstance(value, dict):
        _encode_map(value, out, depth)
    elif isinstance(value, list | tuple):
        out += _head(_ARRAY, len(value))
        for item in value:
            _encode(item, out, depth + 1)
    else:
        out += _encode_scalar(value)


def _encode_map(value: dict[str, Value], out: bytearray, depth: int) -> None:
    out += _head(_MAP, len(value))
    keys = {}
    for key in value:
        if not isinstance(key, str):
            msg = f"a dag-cbor map has the key {key!r}, which is not a string"
            raise InvalidDataError(msg)
        keys[_encode_text(key)] = key
    for encoded in sorted(keys, key=lambda item: (len(item), item)):
        out += _head(_TEXT, len(encoded)) + encoded
        _encode(value[keys[encoded]], out, depth + 1)


def _encode_scalar(value: Value) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int) and value >= -(1 << 63):
        return _head(_UINT, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if isinstance(value, float) and math.isfinite(value):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        text = _encode_text(value)
        return _head(_TEXT, len(text)) + text
    if isinstance(value, CID):
        body = b"\0" + bytes(value)  # the multibase prefix for binary
        return _head(_TAG, _CID_TAG) + _head(_BYTES, len(body)) + body
    msg = f"dag-cbor cannot represent {value!r}"
    raise InvalidDataError(msg)


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"dag-cbor cannot represent the string {text!r}: it is not valid Unicode text"
        raise InvalidDataError(msg) from error


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for extra, (limit, size) in enumerate(((8, 1), (16, 2), (32, 4), (64, 8)), start=24):
        if argument >> limit == 0:
            return bytes((major << 5 | extra,)) + argument.to_bytes(size, "big")
    msg = f"the number {argument} does not fit in 64 bits"
    raise InvalidDataError(msg)


def decode_dagcbor(data: bytes) -> Value:
    """Decode a block, which must contain exactly one value.

    Raises:
        InvalidDataError: the block is not strict dag-cbor.
    """
    decoder = _Decoder(data)
    value = decoder.value(0)
    if decoder.position != len(data):
        msg = f"{len(data) - decoder.position} bytes follow a dag-cbor value"
        raise InvalidDataError(msg)
    return value


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self._fail(f"is nested deeper than {MAX_DEPTH} levels")
        initial = self._take(1)[0]
        major, extra = initial >> 5, initial & 31
        if major == _SIMPLE:
            return self._simple(extra)
        argument = self._argument(extra)
        if major in (_ARRAY, _MAP):
            return self._array(argument, depth) if major == _ARRAY else self._map(argument, depth)
        if major == _TAG:
            return self._cid(argument)
        if major == _BYTES:
            return self._take(argument)
        if major == _TEXT:
            return self._text(argument)
        if major == _NEGATIVE and argument >= 1 << 63:  # Kubo refuses it: it does not fit in an int64
            self._fail("is a negative number below -2**63")
        return argument if major == _UINT else -1 - argument

    def _fail(self, problem: str, cause: Exception | None = None) -> NoReturn:
        msg = f"the dag-cbor value at byte {self.position} {problem}"
        raise InvalidDataError(msg) from cause

    def _take(self, length: int) -> bytes:
        piece = self._data[self.position : self.position + length]
        if len(piece) != length:
            self._fail("ends early")
        self.position += length
        return piece

    def _argument(self, extra: int) -> int:
        if extra < 24:
            return extra
        if extra > 27:
            self._fail("has an indefinite or reserved length")
        size: int = 1 << (extra - 24)
        argument = int.from_bytes(self._take(size), "big")
        if argument < 24 or argument >> (4 * size if size > 1 else 0) == 0:
            self._fail("has a number that is not written in its shortest form")
        return argument

    def _simple(self, extra: int) -> Value:
        if extra in (20, 21, 22):
            return {20: False, 21: True, 22: None}[extra]
        if extra != 27:
            self._fail("is a float of less than 64 bits, or an unknown simple value")
        number = struct.unpack(">d", self._take(8))[0]
        if not math.isfinite(number):
            self._fail("is not a finite number")
        return number

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            self._fail("is a string that is not UTF-8", error)

    def _array(self, count: int, depth: int) -> list[Value]:
        if count > len(self._data) - self.position:  # each item has at least one byte
            self._fail("ends early")
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Value]:
        result: dict[str, Value] = {}
        last: tuple[int, bytes] | None = None
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                self._fail("is a map key, but not a string")
            encoded = key.encode()
            if last is not None and (len(encoded), encoded) <= last:
                self._fail("has map keys that are out of order or repeated")
            last = len(encoded), encoded
            result[key] = self.value(depth + 1)
        return result

    def _cid(self, tag: int) -> CID:
        initial = self._take(1)[0]
        if tag != _CID_TAG or initial >> 5 != _BYTES:  # decoded here, because nested tags must not recurse
            self._fail(f"has tag {tag} on a value that is not a CID")
        body = self._take(self._argument(initial & 31))
        if body[:1] != b"\0":
            self._fail("has a CID without the multibase prefix for binary")
        try:
            return CID.from_bytes(body[1:])
        except InvalidCIDError as error:
            self._fail(f"has an invalid CID: {error}", error)


def links(value: Value) -> list[CID]:
    """Return the CIDs in a decoded value, in order."""
    if isinstance(value, CID):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [cid for item in value for cid in links(item)] if isinstance(value, list) else []
