"""Decoder of CARv2: a header, a CARv1 as the payload, and an index, which is never read.

Source: https://ipld.io/specs/transport/car/carv2/
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable

PRAGMA_BYTES: Final = 11
_HEADER: Final = struct.Struct("<16sQQQ")
_SKIP_BYTES: Final = 1 << 16


def read_payload_size(read: Callable[[int], bytes]) -> int:
    """Read from the end of the pragma to the start of the payload. Return the size of the payload in bytes.

    Raises:
        InvalidDataError: the stream ends early, or the fields of the header contradict each other.
    """
    raw = b""
    while len(raw) < _HEADER.size:
        piece = read(_HEADER.size - len(raw))
        if not piece:
            msg = "the CAR of version 2 ends early, inside its header"
            raise InvalidDataError(msg)
        raw += piece
    _, start, size, index = _HEADER.unpack(raw)
    if start < PRAGMA_BYTES + _HEADER.size:
        msg = f"the payload of the CAR of version 2 would begin at byte {start}, before the end of the header"
        raise InvalidDataError(msg)
    if size == 0:
        msg = "the payload of the CAR of version 2 has size 0"
        raise InvalidDataError(msg)
    if index and index < start + size:
        msg = f"the index of the CAR of version 2 would begin at byte {index}, before the end of its payload"
        raise InvalidDataError(msg)
    missing = start - PRAGMA_BYTES - _HEADER.size
    while missing:  # skip by reading, because a pipe cannot seek
        piece = read(min(missing, _SKIP_BYTES))
        if not piece:
            msg = f"the CAR of version 2 ends early, {missing} bytes before its payload"
            raise InvalidDataError(msg)
        missing -= len(piece)
    return int(size)


class Payload:
    """The next ``size`` bytes of a stream, as a readable object. A stream that ends earlier is an error."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, or an empty result at the end of the payload.

        Raises:
            InvalidDataError: the stream ends inside the payload.
        """
        wanted = min(size, self._left)
        data = self._file.read(wanted) if wanted else b""
        if wanted and not data:
            msg = f"the CAR of version 2 ends early, {self._left} bytes before the end of its payload"
            raise InvalidDataError(msg)
        self._left -= len(data)
        return data
