"""dag-pb: the block format of UnixFS files and directories.

::

    message PBLink { optional bytes Hash = 1; optional string Name = 2; optional uint64 Tsize = 3; }
    message PBNode { repeated PBLink Links = 2; optional bytes Data = 1; }

Links are written before Data, despite their field numbers. Names are kept as bytes, because file names need not be
UTF-8. Source: https://ipld.io/specs/codecs/dag-pb/spec/
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

# Protobuf keys of links and their fields: field number << 3 | wire type.
_CID_KEY: Final = b"\x0a"
_NAME_KEY: Final = b"\x12"
_SIZE_KEY: Final = b"\x18"
_LINK_KEY: Final = b"\x12"
_COMMON_CID: Final = _CID_KEY + bytes((36,))  # key and length of a CIDv1 with a one-byte codec and a sha2-256 hash
_COMMON_NAME: Final = 39  # offset of the name's length in a link with such a CID

_MAX_PROTOBUF_VARINT: Final = 10  # a 64-bit number, seven bits per byte


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another block.

    Attributes:
        cid: CID of the linked block.
        name: file name in a directory, empty in a file; None if the link has no Name field.
        size_bytes: ``Tsize``, the total size of all blocks below, counted once per link; None if absent.
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
    """Encode a protobuf varint, of up to 64 bits. Negative numbers are encoded as two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    if value < 1 << 63:
        return encode_varint(value)
    return bytes(value >> (7 * index) & 0x7F | 0x80 for index in range(9)) + b"\x01"


def encode_link(link: Link) -> bytes:
    """Encode a link as a field of its node, with key and length."""
    return encode_link_fields(bytes(link.cid), link.name, link.size_bytes)


def encode_link_fields(cid: bytes, name: bytes | None, size_bytes: int | None) -> bytes:
    """Encode a link from its fields, as ``encode_link`` does.

    Does not call ``encode_field``, for speed: a large directory has 100,000 links.
    """
    body = _CID_KEY + encode_varint(len(cid)) + cid
    if name is not None:
        body += _NAME_KEY + encode_varint(len(name)) + name
    if size_bytes is not None:
        body += _SIZE_KEY + _encode_uint64(size_bytes)
    return _LINK_KEY + encode_varint(len(body)) + body


def encode_node(links: Iterable[Link], data: bytes | None) -> bytes:
    """Encode a node. The links keep their order; the caller must sort them."""
    return join_node(map(encode_link, links), data)


def join_node(encoded_links: Iterable[bytes], data: bytes | None) -> bytes:
    """Encode a node from links that are encoded already."""
    parts = list(encoded_links)
    if data is not None:
        parts.append(encode_field(1, BYTES, data))
    return b"".join(parts)


def decode_uint64(data: bytes, offset: int) -> tuple[int, int]:
    """Decode the protobuf varint at ``offset``. Unlike a multiformats varint, it has up to ten bytes, minimal or not.

    Returns:
        The number, and the offset of the byte after it.

    Raises:
        InvalidDataError: the bytes end early, or the number is longer than 64 bits.
    """
    if offset < len(data) and data[offset] < 0x80:  # fast path: a node has thousands of keys and lengths of one byte
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
    """Yield ``(field number, wire type, payload)`` for each field of a protobuf message, in order.

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
            msg = f"field {number} is unknown or repeated in a dag-pb node"
            raise InvalidDataError(msg)
    return Node(tuple(links), data)


def _decode_link(body: bytes) -> Link:
    """Decode the body of a link.

    Has a fast path for links with a common CID, a name and a size: a large file or directory has thousands of them.
    """
    if body[:2] == _COMMON_CID and body[38:39] == _NAME_KEY and len(body) > _COMMON_NAME:
        start = _COMMON_NAME + 1
        end = start + body[_COMMON_NAME]  # not the end if the length has two bytes, which the next line excludes
        if body[_COMMON_NAME] < 0x80 and body[end : end + 1] == _SIZE_KEY:
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
            msg = f"field {number} of a dag-pb link is repeated, or follows field {last}"
            raise InvalidDataError(msg)
        last = number
        if number == 1 and isinstance(payload, bytes):
            cid = _cid_of_link(payload)
        elif number == 2 and isinstance(payload, bytes):
            name = payload
        elif number == 3 and isinstance(payload, int):
            size_bytes = payload
        else:
            msg = f"field {number} of a dag-pb link is unknown, or has the wrong wire type"
            raise InvalidDataError(msg)
    if cid is None:
        msg = "a dag-pb link has no CID"
        raise InvalidDataError(msg)
    return Link(cid, name, size_bytes)


def _cid_of_link(data: bytes) -> CID:
    try:
        return CID.from_bytes(data)
    except InvalidCIDError as error:
        msg = f"a dag-pb link has an invalid CID: {error}"
        raise InvalidDataError(msg) from error
