"""CARv1: many blocks in one stream.

::

    | varint(length) | dag-cbor {"roots": [CID, …], "version": 1} |   then, for each block
    | varint(length) | CID | bytes |

Source: https://ipld.io/specs/transport/car/carv1/. Nothing in a CAR is trusted: every block is
hashed, every length is limited before memory is taken.
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

MAX_HEADER_BYTES: Final = 1 << 20  # room for about 25,000 roots
_MAX_CID_BYTES: Final = 256


def encode_car_header(roots: Sequence[CID]) -> bytes:
    """The start of a CAR, its length included."""
    header = encode_dagcbor({"roots": list(roots), "version": 1})
    return encode_varint(len(header)) + header


def encode_car_block(cid: CID, block: bytes) -> bytes:
    """One block as it stands in a CAR."""
    name = bytes(cid)
    return encode_varint(len(name) + len(block)) + name + block


def car_block_size(cid: CID, block_bytes: int) -> int:
    """How many bytes ``encode_car_block`` gives for a block of that length."""
    length = len(bytes(cid)) + block_bytes
    return len(encode_varint(length)) + length


@dataclass(frozen=True, slots=True)
class CarPart:
    """Where a stream begins that is not a whole CAR but the rest of one.

    Attributes:
        start: how many bytes of the CAR come before; a block's frame begins there.
        end: where the payload of a CARv2 ends, in bytes from the start of the file; None: where the stream ends.
        roots: what the CAR's header names. The rest of a CAR has no header.
    """

    start: int
    end: int | None = None
    roots: tuple[CID, ...] = ()


class CarReader:
    """Reads a CARv1, or the one inside a CARv2, from a stream, block by block.

    Args:
        file: the stream.
        part: given where the stream is only the rest of a CAR.

    Attributes:
        roots: the roots that the header names. A promise, not a fact: check that they are whole.
        frame_offset: where the frame begins that is read next, or that is bad: so many bytes of the file are sound.
        payload_end: where the payload of a CARv2 ends, in bytes from the start of the file; None for a CARv1.

    Raises:
        InvalidDataError: the stream is no CAR.
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
            msg = f"this is no CAR: its header would have {length or 0} bytes (1 to {MAX_HEADER_BYTES} are allowed)"
            raise InvalidDataError(msg)
        try:
            return decode_dagcbor(self._read_exactly(length))
        except InvalidDataError as error:
            msg = f"this is no CAR: its header is unreadable: {error}"
            raise InvalidDataError(msg) from error

    @staticmethod
    def _check_header(header: object) -> list[CID]:
        version = header.get("version") if isinstance(header, dict) else None
        if not isinstance(header, dict) or version != 1:
            msg = f"this is a CAR of version {version}; only version 1, alone or inside version 2, can be read"
            raise InvalidDataError(msg)
        roots = header.get("roots")
        if not isinstance(roots, list) or not all(isinstance(root, CID) for root in roots):
            msg = "the header of the CAR has no list of roots"
            raise InvalidDataError(msg)
        for root in roots:
            if not root.is_hash_supported:
                msg = f"this CAR cannot be imported: the block of its root {root} cannot be verified{root.hash_hint}"
                raise InvalidDataError(msg)
        return roots

    def __iter__(self) -> Iterator[tuple[CID, bytes]]:
        """Yield each block, verified.

        Raises:
            IntegrityError: a block does not hash to its CID.
            InvalidDataError: the stream ends early, or a length breaks a limit.
        """
        while True:
            start = self._offset
            length = read_varint(self._read)
            if length is None:
                return
            if not 1 <= length <= MAX_BLOCK_BYTES + _MAX_CID_BYTES:
                msg = f"a block at byte {start} of the CAR has {length} bytes; at most {MAX_BLOCK_BYTES} are allowed"
                raise InvalidDataError(msg)
            found = self._decode_section(self._read_exactly(length), start)
            self.frame_offset = self._offset
            yield found

    def _decode_section(self, section: bytes, start: int) -> tuple[CID, bytes]:
        try:
            cid, end = CID.decode(section)
            cid.check_hash()
        except InvalidCIDError as error:
            msg = f"the block at byte {start} of the CAR has no usable CID: {error}"
            raise InvalidDataError(msg) from error
        block = section[end:]
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
        if len(piece) == size:  # from a file, always
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
