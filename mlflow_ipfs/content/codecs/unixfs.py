"""UnixFS: files, directories and symlinks as dag-pb nodes.

::

    message Data {
      required DataType Type = 1;      optional bytes Data = 2;       optional uint64 filesize = 3;
      repeated uint64 blocksizes = 4;  optional uint64 hashType = 5;  optional uint64 fanout = 6;
      optional uint32 mode = 7;        optional UnixTime mtime = 8;
    }
    message UnixTime { required int64 Seconds = 1; optional fixed32 FractionalNanoseconds = 2; }

Source: https://specs.ipfs.tech/unixfs/; the fields are encoded as Kubo encodes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.codecs.dag_pb import (
    BYTES,
    FIXED32,
    VARINT,
    decode_fields,
    decode_uint64,
    encode_field,
    encode_node,
)
from mlflow_ipfs.content.varint import encode_varint
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from mlflow_ipfs.content.codecs.dag_pb import Node

MODE_MASK: Final = 0o7777  # permission bits; the field Type has the file type
NANOSECONDS: Final = 1_000_000_000
_MTIME_NANOSECONDS_KEY: Final = bytes((2 << 3 | FIXED32,))


class LeafEncoding(IntEnum):
    """Encoding of a leaf's block from the bytes of the file. The numbers are stored: never change them."""

    RAW = 0  # the block is the bytes
    UNIXFS_FILE = 1  # the block is a dag-pb UnixFS File node that contains the bytes (CIDv0 profiles)


class NodeType(IntEnum):
    """The field ``Type`` of a UnixFS node."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True)
class UnixFSData:
    """The decoded ``Data`` field of a UnixFS node.

    Attributes:
        type: the type of the node.
        data: the bytes of a file, the target of a symlink, or the bitfield of a HAMT shard; None if absent.
        size_bytes: size of the file below this node; None if absent.
        block_sizes: for each link of a file, the number of bytes of the file below it.
        hash_type: multihash code of a HAMT's hash function; None if absent.
        fanout: number of slots of a HAMT shard; None if absent.
        mode: POSIX permission bits; None if not recorded.
        mtime_ns: modification time in ns since 1970; None if not recorded.
    """

    type: NodeType
    data: bytes | None = None
    size_bytes: int | None = None
    block_sizes: tuple[int, ...] = ()
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def is_directory(self) -> bool:
        """Whether the node is a directory, sharded or not."""
        return self.type in (NodeType.DIRECTORY, NodeType.HAMT_SHARD)

    @property
    def is_file(self) -> bool:
        """Whether the node is a file or a part of one."""
        return self.type in (NodeType.FILE, NodeType.RAW)


def encode_data(data: UnixFSData) -> bytes:
    """Encode the ``Data`` field of a node."""
    parts = [encode_field(1, VARINT, int(data.type))]
    if data.data is not None:
        parts.append(encode_field(2, BYTES, data.data))
    if data.size_bytes is not None:
        parts.append(encode_field(3, VARINT, data.size_bytes))
    parts += [encode_field(4, VARINT, size) for size in data.block_sizes]
    if data.hash_type is not None:
        parts.append(encode_field(5, VARINT, data.hash_type))
    if data.fanout is not None:
        parts.append(encode_field(6, VARINT, data.fanout))
    if data.mode:
        parts.append(encode_field(7, VARINT, data.mode))
    if data.mtime_ns is not None:
        parts.append(encode_field(8, BYTES, _encode_mtime(data.mtime_ns)))
    return b"".join(parts)


def _encode_mtime(mtime_ns: int) -> bytes:
    seconds, nanoseconds = divmod(mtime_ns, NANOSECONDS)
    out = encode_field(1, VARINT, seconds)
    if nanoseconds:
        out += _MTIME_NANOSECONDS_KEY + nanoseconds.to_bytes(4, "little")
    return out


def _decode_mtime(body: bytes) -> int:
    seconds = nanoseconds = 0
    for number, _, payload in decode_fields(body):
        if number == 1 and isinstance(payload, int):
            seconds = payload - (1 << 64) if payload >> 63 else payload
        elif number == 2 and isinstance(payload, bytes):
            nanoseconds = int.from_bytes(payload, "little")
    if nanoseconds >= NANOSECONDS:
        msg = f"a UnixFS mtime has {nanoseconds} nanoseconds; the maximum is {NANOSECONDS - 1}"
        raise InvalidDataError(msg)
    return seconds * NANOSECONDS + nanoseconds


def decode_data(body: bytes) -> UnixFSData:
    """Decode the ``Data`` field of a node. Unknown fields are skipped, as protobuf requires.

    Raises:
        InvalidDataError: the bytes are not a UnixFS message, or its type is unknown.
    """
    numbers: dict[int, int] = {}
    blobs: dict[int, bytes] = {}
    block_sizes: list[int] = []
    for number, wire_type, payload in decode_fields(body):
        if number == 4:
            block_sizes += _decode_block_sizes(payload)
        elif isinstance(payload, int):
            numbers[number] = payload
        elif wire_type == BYTES:
            blobs[number] = payload
    try:
        node_type = NodeType(numbers[1])
    except (KeyError, ValueError):
        msg = f"the node is not UnixFS: its Type is {numbers.get(1)}"
        raise InvalidDataError(msg) from None
    return UnixFSData(
        type=node_type,
        data=blobs.get(2),
        size_bytes=numbers.get(3),
        block_sizes=tuple(block_sizes),
        hash_type=numbers.get(5),
        fanout=numbers.get(6),
        mode=numbers[7] & MODE_MASK if 7 in numbers else None,
        mtime_ns=_decode_mtime(blobs[8]) if 8 in blobs else None,
    )


def _decode_block_sizes(payload: int | bytes) -> list[int]:
    """Return the sizes in one field: one, or several in protobuf's packed form."""
    if isinstance(payload, int):
        return [payload]
    sizes: list[int] = []
    position = 0
    while position < len(payload):
        size, position = decode_uint64(payload, position)
        sizes.append(size)
    return sizes


def decode_unixfs(node: Node) -> UnixFSData:
    """Decode the UnixFS data of a dag-pb node, and check that it is consistent with the node's links.

    Raises:
        InvalidDataError: the node has no UnixFS data, or is a file with different numbers of links and block sizes.
    """
    if node.data is None:
        msg = "the dag-pb node has no Data field, so it is not UnixFS"
        raise InvalidDataError(msg)
    data = decode_data(node.data)
    if data.is_file and len(data.block_sizes) != len(node.links):
        msg = f"a UnixFS file node has {len(node.links)} links and {len(data.block_sizes)} block sizes"
        raise InvalidDataError(msg)
    return data


def leaf_frame(length: int) -> tuple[bytes, bytes]:
    """Return the prefix and suffix that wrap ``length`` bytes of a file in a leaf (``LeafEncoding.UNIXFS_FILE``)."""
    data_field = b"\x12" + encode_varint(length) if length else b""
    suffix = b"\x18" + encode_varint(length)
    body_length = 2 + len(data_field) + length + len(suffix)
    return b"\x0a" + encode_varint(body_length) + b"\x08\x02" + data_field, suffix


def encode_leaf(payload: bytes | memoryview) -> bytes:
    """Wrap a file's bytes in a dag-pb UnixFS File node, the leaf of CIDv0 profiles."""
    prefix, suffix = leaf_frame(len(payload))
    return b"".join((prefix, payload, suffix))


def block_of_leaf(piece: bytes, form: LeafEncoding | int) -> bytes:
    """Return the block of a leaf, encoded from the leaf's bytes of the file."""
    return encode_leaf(piece) if form == LeafEncoding.UNIXFS_FILE else piece


def encode_symlink(target: bytes, *, mtime_ns: int | None = None) -> bytes:
    """Encode the block of a symlink. As in Kubo, it has neither size nor mode."""
    return encode_node((), encode_data(UnixFSData(NodeType.SYMLINK, target, mtime_ns=mtime_ns)))
