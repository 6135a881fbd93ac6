"""Encoder and decoder of CARv1, a sequence of blocks in one stream.

::

    | varint(length) | dag-cbor {"roots": [CID, …], "version": 1} |   then, for each block
    | varint(length) | CID | bytes |

Source: https://ipld.io/specs/transport/car/carv1/. The content of a CAR is not trusted: every block is
hashed, and every length is checked against a limit before memory is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.car.v2 import PRAGMA_BYTES, Payload, read_payload_size
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_cbor import decode_dagcbor, encode_dagcbor
from mlflow_ipfs.content.varint import encode_varint, read_varint
from mlflow_ipfs.errors import IntegrityError, InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_HEADER_BYTES: Final = 1 << 20  # enough for about 25,000 roots
_MAX_CID_BYTES: Final = 256


def encode_car_header(roots: Sequence[CID]) -> bytes:
    """Return the header of a CAR, including its length prefix."""
    header = encode_dagcbor({"roots": list(roots), "version": 1})
    return encode_varint(len(header)) + header


def encode_car_block(cid: CID, block: bytes) -> bytes:
    """Return the frame of one block in a CAR: the length prefix, the CID and the data."""
    cid_bytes = bytes(cid)
    return encode_varint(len(cid_bytes) + len(block)) + cid_bytes + block


def car_block_size(cid: CID, block_bytes: int) -> int:
    """Return the size in bytes of the frame that ``encode_car_block`` makes of a block of this length."""
    length = len(bytes(cid)) + block_bytes
    return len(encode_varint(length)) + length


@dataclass(frozen=True, slots=True)
class CarPart:
    """Position of a stream that contains only the rest of a CAR.

    Attributes:
        start: offset in the CAR at which the stream starts, in bytes. The frame of a block must start there.
        end: offset at which the payload of a CARv2 ends, in bytes from the start of the file. None if the payload
            ends with the stream.
        roots: roots in the header of the CAR. The rest of a CAR has no header.
    """

    start: int
    end: int | None = None
    roots: tuple[CID, ...] = ()


class CarReader:
    """Reader of a CARv1, or of the CARv1 inside a CARv2, from a stream, block by block.

    Args:
        file: the stream.
        part: position of the stream in the CAR, if the stream contains only the rest of a CAR.

    Attributes:
        roots: roots in the header. The CAR need not contain their complete DAGs: the caller must check this.
        frame_offset: offset of the next frame, or of the first invalid frame, in bytes. All data before it is valid.
        payload_end: offset at which the payload of a CARv2 ends, in bytes from the start of the file. None for a CARv1.

    Raises:
        InvalidDataError: the stream is not a CAR.
    """

    def __init__(self, file: BinaryIO, part: CarPart | None = None) -> None:
        self._file: BinaryIO | Payload = file
        self._offset = part.start if part else 0
        self.payload_end = part.end if part else None
        if part is None:
            self.roots = self._read_roots(file)
        else:
            self.roots = list(part.roots)
            if part.end is not None:
                self._file = Payload(file, part.end - part.start)
        self.frame_offset = self._offset

    def _read_roots(self, file: BinaryIO) -> list[CID]:
        header = self._read_header()
        if header == {"version": 2} and self._offset == PRAGMA_BYTES:
            payload_bytes = read_payload_size(self._read)
            self._file, self.payload_end = Payload(file, payload_bytes), self._offset + payload_bytes
            header = self._read_header()
        return self._check_header(header)

    def _read_header(self) -> object:
        length = read_varint(self._read)
        if length is None or not 1 <= length <= MAX_HEADER_BYTES:
            msg = (
                f"the input is not a CAR: its header would have {length or 0} bytes "
                f"(1 to {MAX_HEADER_BYTES} are allowed)"
            )
            raise InvalidDataError(msg)
        try:
            return decode_dagcbor(self._read_exactly(length))
        except InvalidDataError as error:
            msg = f"the input is not a CAR: its header cannot be decoded: {error}"
            raise InvalidDataError(msg) from error

    @staticmethod
    def _check_header(header: object) -> list[CID]:
        version = header.get("version") if isinstance(header, dict) else None
        if not isinstance(header, dict) or version != 1:
            msg = (
                f"the header of the CAR has version {version}, but only version 1, alone or inside version 2, can be "
                "read: export the CAR as version 1"
            )
            raise InvalidDataError(msg)
        roots = header.get("roots")
        if not isinstance(roots, list) or not all(isinstance(root, CID) for root in roots):
            msg = "the header of the CAR does not contain a list of roots"
            raise InvalidDataError(msg)
        for root in roots:
            if not root.is_hash_supported:
                msg = f"this CAR cannot be imported: the block of its root {root} cannot be verified{root.hash_hint}"
                raise InvalidDataError(msg)
        return roots

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        """Yield each block after its hash was verified.

        Raises:
            IntegrityError: a block does not hash to its CID.
            InvalidDataError: the stream ends early, or a length exceeds a limit.
        """
        while True:
            start = self._offset
            length = read_varint(self._read)
            if length is None:
                return
            if not 1 <= length <= MAX_BLOCK_BYTES + _MAX_CID_BYTES:
                msg = f"a block at byte {start} of the CAR has {length} bytes; at most {MAX_BLOCK_BYTES} are allowed"
                raise InvalidDataError(msg)
            cid_and_block = self._decode_frame(self._read_exactly(length), start)
            self.frame_offset = self._offset
            yield cid_and_block

    def _decode_frame(self, frame: bytes, start: int) -> tuple[CID, bytes]:
        try:
            cid, end = CID.decode(frame)
            cid.check_hash()
        except InvalidCIDError as error:
            msg = f"the block at byte {start} of the CAR does not have a usable CID: {error}"
            raise InvalidDataError(msg) from error
        block = frame[end:]
        if len(block) > MAX_BLOCK_BYTES:
            msg = f"the block {cid} at byte {start} of the CAR has more than {MAX_BLOCK_BYTES} bytes"
            raise InvalidDataError(msg)
        if not cid.matches(block):
            msg = f"the block at byte {start} of the CAR does not hash to its CID {cid}"
            raise IntegrityError(msg)
        return cid, block

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._offset += len(data)
        return data

    def _read_exactly(self, size: int) -> bytes:
        piece = self._read(size)
        if len(piece) == size:  # always true for a regular file
            return piece
        pieces = [piece] if piece else []
        missing = size - len(piece)
        while missing:
            piece = self._read(missing)
            if not piece:
                msg = f"the CAR ends early, at byte {self._offset}, {missing} bytes before the end of a block"
                raise InvalidDataError(msg)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)
