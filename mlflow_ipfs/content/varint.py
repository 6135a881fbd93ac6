"""Unsigned varints of multiformats: LEB128, minimal, at most nine bytes.

Source: https://github.com/multiformats/unsigned-varint
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_VARINT_BYTES = 9  # the spec's limit: 63 bits


def encode_varint(value: int) -> bytes:
    """Encode a number from 0 to 2**63-1.

    Raises:
        InvalidDataError: the number is negative or too large.
    """
    if 0 <= value < 0x80:
        return bytes((value,))
    if value < 0 or value >> 63:
        msg = f"{value} does not fit in an unsigned varint (0 to 2**63-1)"
        raise InvalidDataError(msg)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | memoryview, offset: int = 0) -> tuple[int, int]:
    """Decode the varint at ``offset`` in ``data``.

    Returns:
        The number, and the offset of the byte after it.

    Raises:
        InvalidDataError: the bytes end early, are longer than nine, or are not minimal.
    """
    value = 0
    for index in range(MAX_VARINT_BYTES):
        position = offset + index
        if position >= len(data):
            msg = f"a varint at byte {offset} ends early"
            raise InvalidDataError(msg)
        byte = data[position]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                msg = f"a varint at byte {offset} is not minimal"
                raise InvalidDataError(msg)
            return value, position + 1
    msg = f"a varint at byte {offset} is longer than {MAX_VARINT_BYTES} bytes"
    raise InvalidDataError(msg)


def read_varint(read: Callable[[int], bytes]) -> int | None:
    """Read one varint from a stream, byte by byte.

    Args:
        read: reads at most the given number of bytes; returns ``b""`` at the end of the stream.

    Returns:
        The number, or None if the stream ends before the first byte.

    Raises:
        InvalidDataError: the stream ends inside the varint, or the varint is too long or not minimal.
    """
    buffer = bytearray()
    while True:
        byte = read(1)
        if not byte:
            if not buffer:
                return None
            msg = "the stream ends inside a varint"
            raise InvalidDataError(msg)
        buffer += byte
        if byte[0] < 0x80 and len(buffer) == 2 and byte[0]:  # fast path for the length of most frames of a CAR
            return buffer[0] & 0x7F | byte[0] << 7
        if byte[0] < 0x80 or len(buffer) > MAX_VARINT_BYTES:
            return decode_varint(bytes(buffer))[0]
