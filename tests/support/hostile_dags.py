"""DAGs made to be more than a reader can bear: few blocks, many paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.hamt import ShardLayout
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data

if TYPE_CHECKING:
    from support.blocks import Blocks


def put_leaf(blocks: Blocks, data: bytes = b"data") -> CID:
    """A raw leaf."""
    blocks.put(CID.of(data), data)
    return CID.of(data)


def put_directory(blocks: Blocks, *entries: tuple[bytes, CID]) -> CID:
    """A directory of one block."""
    found = [Link(cid, name, 1) for name, cid in entries]
    return blocks.put_node(encode_node(found, encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB)


def put_shard(blocks: Blocks, slots: dict[int, tuple[bytes, CID]], fanout: int = 256) -> CID:
    """A HAMT shard with these slots: a name and what it links to, or no name and a child shard."""
    layout = ShardLayout(fanout)
    found = [Link(cid, layout.prefix(slot) + name, 1) for slot, (name, cid) in sorted(slots.items())]
    bits = sum(1 << slot for slot in slots)
    bitfield = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    data = UnixFSData(NodeType.HAMT_SHARD, bitfield, hash_type=0x22, fanout=fanout)
    return blocks.put_node(encode_node(found, encode_data(data)), DAG_PB)


def put_file(blocks: Blocks, *parts: tuple[CID, int], data: bytes | None = None) -> CID:
    """A file node; of each part its CID and how many bytes the node says that it has."""
    sizes = tuple(size for _, size in parts)
    fields = UnixFSData(NodeType.FILE, data, len(data or b"") + sum(sizes), block_sizes=sizes)
    return blocks.put_node(encode_node([Link(cid, b"", size) for cid, size in parts], encode_data(fields)), DAG_PB)


def shared_shards(blocks: Blocks, levels: int, fanout: int = 8, *, name: bytes | None = None) -> CID:
    """HAMT shards that link to the next one from every slot; the last one is empty, or has one name."""
    leaf = put_leaf(blocks)
    root = put_shard(blocks, {} if name is None else {0: (name, leaf)}, fanout)
    for _ in range(levels):
        root = put_shard(blocks, dict.fromkeys(range(fanout), (b"", root)), fanout)
    return root


def shared_directories(blocks: Blocks, levels: int, width: int = 2) -> CID:
    """Directories that name the next one ``width`` times."""
    root = put_directory(blocks)
    for _ in range(levels):
        root = put_directory(blocks, *((b"%d" % number, root) for number in range(width)))
    return root


def shared_parts(blocks: Blocks, levels: int, *, leaf: bytes = b"x", width: int = 2) -> CID:
    """A file whose nodes link to the next one ``width`` times: ``width ** levels`` leaves."""
    root, size_bytes = put_leaf(blocks, leaf), len(leaf)
    for _ in range(levels):
        root = put_file(blocks, *([(root, size_bytes)] * width))
        size_bytes *= width
    return root


def deep_file(blocks: Blocks, levels: int) -> CID:
    """A file of so many levels, its leaf included."""
    root = put_leaf(blocks)
    for _ in range(levels - 1):
        root = put_file(blocks, (root, 4))
    return root
