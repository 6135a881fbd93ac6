"""DAGs made to exhaust a reader: few blocks with many paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.hamt import ShardLayout
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data

if TYPE_CHECKING:
    from support.blocks import Blocks


def put_leaf(blocks: Blocks, data: bytes = b"data") -> CID:
    """Store a raw leaf."""
    blocks.put(CID.of(data), data)
    return CID.of(data)


def put_directory(blocks: Blocks, *entries: tuple[bytes, CID]) -> CID:
    """Store a directory of one block."""
    links = [Link(cid, name, 1) for name, cid in entries]
    return blocks.put_node(encode_node(links, encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB)


def put_shard(blocks: Blocks, slots: dict[int, tuple[bytes, CID]], fanout: int = 256) -> CID:
    """Store a HAMT shard. A slot has a name and the CID of its entry, or an empty name and the CID of a child shard."""
    layout = ShardLayout(fanout)
    links = [Link(cid, layout.prefix(slot) + name, 1) for slot, (name, cid) in sorted(slots.items())]
    bits = sum(1 << slot for slot in slots)
    bitfield = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    data = UnixFSData(NodeType.HAMT_SHARD, bitfield, hash_type=0x22, fanout=fanout)
    return blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)


def put_file(blocks: Blocks, *parts: tuple[CID, int], data: bytes | None = None) -> CID:
    """Store a file node. Each part is a CID and the size in bytes that the node states for it."""
    sizes = tuple(size for _, size in parts)
    fields = UnixFSData(NodeType.FILE, data, len(data or b"") + sum(sizes), block_sizes=sizes)
    return blocks.put_node(encode_node([Link(cid, b"", size) for cid, size in parts], encode_data(fields)), DAG_PB)


def shared_shards(blocks: Blocks, levels: int, fanout: int = 8, *, name: bytes | None = None) -> CID:
    """Store HAMT shards that link to the next one from every slot. The last one is empty, or has one name."""
    leaf = put_leaf(blocks)
    root = put_shard(blocks, {} if name is None else {0: (name, leaf)}, fanout)
    for _ in range(levels):
        root = put_shard(blocks, dict.fromkeys(range(fanout), (b"", root)), fanout)
    return root


def shared_directories(blocks: Blocks, levels: int, width: int = 2) -> CID:
    """Store directories that have the next one as an entry ``width`` times."""
    root = put_directory(blocks)
    for _ in range(levels):
        root = put_directory(blocks, *((b"%d" % number, root) for number in range(width)))
    return root


def shared_parts(blocks: Blocks, levels: int, *, leaf: bytes = b"x", width: int = 2) -> CID:
    """Store a file whose nodes link to the next one ``width`` times: ``width ** levels`` leaves."""
    root, size_bytes = put_leaf(blocks, leaf), len(leaf)
    for _ in range(levels):
        root = put_file(blocks, *([(root, size_bytes)] * width))
        size_bytes *= width
    return root


def deep_file(blocks: Blocks, levels: int) -> CID:
    """Store a file with ``levels`` levels, including the leaf."""
    root = put_leaf(blocks)
    for _ in range(levels - 1):
        root = put_file(blocks, (root, 4))
    return root
