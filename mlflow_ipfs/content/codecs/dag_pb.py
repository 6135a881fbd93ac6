"""dag-pb: the block format of UnixFS files and directories.

::

    message PBLink { optional bytes Hash = 1; optional string Name = 2; optional uint64 Tsize = 3; }
    message PBNode { repeated PBLink Links = 2; optional bytes Data = 1; }

Links are written before Data, whatever their field numbers say. Names are kept as bytes: file
names need not be UTF-8. Source: https://ipld.io/specs/codecs/dag-pb/spec/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.varint import encode_varint
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

# Number << 3 | wire type, of the fields that links have.
_CID_KEY: Final = b"\x0a"
_NAME_KEY: Final = b"\x12"
_SIZE_KEY: Final = b"\x18"
_LINK_KEY: Final = b"\x12"
_USUAL_CID: Final = _CID_KEY + bytes((36,))  # version, codec, and sha2-256 with its 32 bytes
_USUAL_NAME: Final = 39  # where the length of the name is in a link with such a CID

_MAX_PROTOBUF_VARINT: Final = 10  # a 64-bit number, seven bits a byte


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another block.

    Attributes:
        cid: the block that is linked.
        name: file name in a directory, empty in a file; None where the block has no Name field.
        size_bytes: ``Tsize``, the sum of the sizes of all blocks below, each link counted; None where absent.
    """

    cid: CID
    name: bytes | None = b""
    size_bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded dag-pb block."""

    links: tuple[Link, ...]
    data: bytes | None


def encode_field(number: int, wire_type: int, payload: bytes | int) -> bytes:
    """Encode one protobuf field; ``payload`` is a number for ``VARINT`` and bytes for ``BYTES``."""
    key = bytes((number << 3 | wire_type,))
    if isinstance(payload, int):
        return key + _encode_uint64(payload)
    return key + encode_varint(len(payload)) + payload


def _encode_uint64(value: int) -> bytes:
    """Protobuf's varint: all 64 bits, negative numbers as two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    if value < 1 << 63:
        return encode_varint(value)
    return bytes(value >> (7 * index) & 0x7F | 0x80 for index in range(9)) + b"\x01"


def encode_link(link: Link) -> bytes:
    """Encode a link as it stands in its node, key and length included."""
    return encode_link_fields(bytes(link.cid), link.name, link.size_bytes)


def encode_link_fields(cid: bytes, name: bytes | None, size_bytes: int | None) -> bytes:
    """The same from the link's fields. ``encode_field`` is not used: a large directory has 100,000 links."""
    body = _CID_KEY + encode_varint(len(cid)) + cid
    if name is not None:
        body += _NAME_KEY + encode_varint(len(name)) + name
    if size_bytes is not None:
        body += _SIZE_KEY + _encode_uint64(size_bytes)
    return _LINK_KEY + encode_varint(len(body)) + body


def encode_node(links: Iterable[Link], data: bytes | None) -> bytes:
    """Encode a node. The links keep their order; sorting is the caller's business."""
    return join_node(map(encode_link, links), data)


def join_node(encoded_links: Iterable[bytes], data: bytes | None) -> bytes:
    """Make a node of links that are encoded already."""
    parts = list(encoded_links)
    if data is not None:
        parts.append(encode_field(1, BYTES, data))
    return b"".join(parts)


def decode_uint64(data: bytes, offset: int) -> tuple[int, int]:
    """Decode a protobuf varint; unlike multiformats' it has ten bytes at most and need not be minimal."""
    if offset < len(data) and data[offset] < 0x80:  # nearly all keys and lengths, of which a node has thousands
        return data[offset], offset + 1
    value = shift = 0
    for position in range(offset, offset + _MAX_PROTOBUF_VARINT):
        if position >= len(data):
            break
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + 1
        shift += 7
    msg = f"a protobuf number at byte {offset} ends early or is too long"
    raise InvalidDataError(msg)


def decode_fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield ``(field number, wire type, payload)`` of a protobuf message, in order.

    Raises:
        InvalidDataError: the message is malformed.
    """
    position = 0
    while position < len(data):
        key, position = decode_uint64(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = decode_uint64(data, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            length, position = decode_uint64(data, position)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            msg = f"protobuf wire type {wire_type} at byte {position} is unknown"
            raise InvalidDataError(msg)
        if position + length > len(data):
            msg = f"a protobuf field at byte {position} ends early"
            raise InvalidDataError(msg)
        yield number, wire_type, data[position : position + length]
        position += length


def decode_node(block: bytes) -> Node:
    """Decode a dag-pb block.

    Raises:
        InvalidDataError: the bytes are not a dag-pb node.
    """
    links: list[Link] = []
    data: bytes | None = None
    links_before_data = False
    for number, wire_type, payload in decode_fields(block):
        if wire_type != BYTES or not isinstance(payload, bytes):
            msg = f"field {number} of a dag-pb node has wire type {wire_type}"
            raise InvalidDataError(msg)
        if number == 2:
            if links_before_data:
                msg = "a dag-pb node has links both before and after its Data"
                raise InvalidDataError(msg)
            links.append(_decode_link(payload))
        elif number == 1 and data is None:
            data = payload
            links_before_data = bool(links)
        else:
            msg = f"field {number} has no place in a dag-pb node"
            raise InvalidDataError(msg)
    return Node(tuple(links), data)


def _decode_link(body: bytes) -> Link:
    """Decode the body of a link, most often of a common form: a large file or directory has thousands."""
    if body[:2] == _USUAL_CID and body[38:39] == _NAME_KEY and len(body) > _USUAL_NAME:
        start = _USUAL_NAME + 1
        end = start + body[_USUAL_NAME]  # if the name is longer than 127 bytes, no key of a size follows there
        if body[_USUAL_NAME] < 0x80 and body[end : end + 1] == _SIZE_KEY:
            size_bytes, position = decode_uint64(body, end + 1)
            if position == len(body):
                return Link(_cid_of_link(body[2:38]), body[start:end], size_bytes)
    return _decode_any_link(body)


def _decode_any_link(body: bytes) -> Link:
    cid: CID | None = None
    name: bytes | None = None
    size_bytes: int | None = None
    last = 0
    for number, _, payload in decode_fields(body):
        if number <= last:
            msg = f"field {number} of a dag-pb link is there twice, or comes after field {last}"
            raise InvalidDataError(msg)
        last = number
        if number == 1 and isinstance(payload, bytes):
            cid = _cid_of_link(payload)
        elif number == 2 and isinstance(payload, bytes):
            name = payload
        elif number == 3 and isinstance(payload, int):
            size_bytes = payload
        else:
            msg = f"field {number} has no place in a dag-pb link"
            raise InvalidDataError(msg)
    if cid is None:
        msg = "a dag-pb link has no CID"
        raise InvalidDataError(msg)
    return Link(cid, name, size_bytes)


def _cid_of_link(data: bytes) -> CID:
    try:
        return CID.from_bytes(data)
    except InvalidCIDError as error:
        msg = f"a dag-pb link holds no usable CID: {error}"
        raise InvalidDataError(msg) from error
