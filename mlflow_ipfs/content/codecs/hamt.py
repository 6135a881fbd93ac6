"""HAMT: directories too large for one block, sharded by a hash of their names.

A shard has ``fanout`` slots. The slot of a name is the next ``log2(fanout)`` bits of its hash. A slot contains the
link to the file, or to a child shard if several names share the slot. Link names start with the number of the slot in
hexadecimal, padded to the width of the largest number.
Source: https://specs.ipfs.tech/unixfs/#dag-pb-hamtdirectory
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.codecs.dag_pb import Link, Node, encode_link_fields, join_node
from mlflow_ipfs.content.codecs.murmur3 import murmur3_x64_64, murmur3_x64_64_many
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow_ipfs.content.cid import CID

MURMUR3_X64_64: Final = 0x22  # the only hash function that UnixFS directories use
MAX_FANOUT: Final = 1024  # Kubo's limit
_HASH_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Layout of a HAMT's shards: ``fanout`` slots per shard, a power of two and a multiple of 8."""

    fanout: int

    def __post_init__(self) -> None:
        if not 8 <= self.fanout <= MAX_FANOUT or self.fanout & (self.fanout - 1):
            msg = f"a HAMT fanout of {self.fanout} is not a power of two from 8 to {MAX_FANOUT}"
            raise InvalidDataError(msg)

    @property
    def bits(self) -> int:
        """Number of hash bits that one level uses."""
        return self.fanout.bit_length() - 1

    @property
    def max_depth(self) -> int:
        """Number of levels for which a 64-bit hash has enough bits."""
        return _HASH_BITS // self.bits

    @property
    def prefix_length(self) -> int:
        """Length of the slot number at the start of a link's name."""
        return len(f"{self.fanout - 1:X}")

    def slot(self, name_hash: int, depth: int) -> int:
        """Return the slot of a name in a shard ``depth`` levels below the root.

        Raises:
            InvalidDataError: the shard is deeper than the hash has bits.
        """
        shift = _HASH_BITS - self.bits * (depth + 1)
        if shift < 0:
            msg = f"a HAMT is deeper than {self.max_depth} levels: its names collide or it is malformed"
            raise InvalidDataError(msg)
        return name_hash >> shift & (self.fanout - 1)

    def prefix(self, slot: int) -> bytes:
        """Return a slot number as it is written in link names."""
        return f"{slot:0{self.prefix_length}X}".encode("ascii")

    @property
    def slots(self) -> dict[bytes, int]:
        """Slot numbers by their prefix in link names, in order."""
        return _slots(self)


@cache  # bounded: there are eight fanouts
def _slots(layout: ShardLayout) -> dict[bytes, int]:
    return {layout.prefix(slot): slot for slot in range(layout.fanout)}


def layout_of(data: UnixFSData) -> ShardLayout:
    """Return the layout that a shard's own fields state.

    Raises:
        InvalidDataError: the hash function is not murmur3-x64-64, or the fanout is invalid.
    """
    if data.hash_type != MURMUR3_X64_64:
        msg = f"a HAMT directory uses hash function {data.hash_type}; only {MURMUR3_X64_64} (murmur3-x64-64) is defined"
        raise InvalidDataError(msg)
    return ShardLayout(data.fanout or 0)


class HamtBuilder:
    """Builder of the shards of one directory.

    Args:
        put: stores a dag-pb block and returns its CID.
        fanout: number of slots of a shard.
    """

    def __init__(self, put: Callable[[bytes], CID], fanout: int) -> None:
        self._put = put
        self._layout = ShardLayout(fanout)

    def build(self, links: Sequence[Link], *, mode: int | None = None, mtime_ns: int | None = None) -> Link:
        """Build the shards for the links of a directory. The names must be unique.

        Returns:
            A link without name to the root shard, with the cumulative size of all blocks.
        """
        hashed = [(murmur3_x64_64(link.name or b""), link) for link in links]
        cid, dag_bytes = self._shard(hashed, 0, mode, mtime_ns)
        return Link(cid, b"", dag_bytes)

    def _shard(
        self, hashed: list[tuple[int, Link]], depth: int, mode: int | None = None, mtime_ns: int | None = None
    ) -> tuple[CID, int]:
        """Build a shard and those below it. Return its CID, and the total size of its blocks in bytes."""
        slots: dict[int, list[tuple[int, Link]]] = {}
        for item in hashed:
            slots.setdefault(self._layout.slot(item[0], depth), []).append(item)
        encoded: list[bytes] = []
        below_bytes = bitfield = 0
        for slot in sorted(slots):
            link_bytes, size_bytes = self._slot_link(slot, slots[slot], depth)
            encoded.append(link_bytes)
            below_bytes += size_bytes
            bitfield |= 1 << slot
        data = UnixFSData(
            NodeType.HAMT_SHARD,
            data=bitfield.to_bytes((bitfield.bit_length() + 7) // 8, "big"),
            hash_type=MURMUR3_X64_64,
            fanout=self._layout.fanout,
            mode=mode,
            mtime_ns=mtime_ns,
        )
        block = join_node(encoded, encode_data(data))
        return self._put(block), len(block) + below_bytes

    def _slot_link(self, slot: int, hashed: list[tuple[int, Link]], depth: int) -> tuple[bytes, int]:
        """Return the encoded link of one slot, and the total size of the blocks below it in bytes."""
        prefix = self._layout.prefix(slot)
        if len(hashed) == 1:
            link = hashed[0][1]
            encoded = encode_link_fields(bytes(link.cid), prefix + (link.name or b""), link.size_bytes)
            return encoded, link.size_bytes or 0
        cid, dag_bytes = self._shard(hashed, depth + 1)
        return encode_link_fields(bytes(cid), prefix, dag_bytes), dag_bytes


def _check_shard(node: Node, data: UnixFSData) -> ShardLayout:
    """Check that a shard has one link for each slot in its bitfield, in order. Return its layout."""
    layout = layout_of(data)
    slots, width = layout.slots, layout.prefix_length
    last, found = -1, 0
    for link in node.links:
        slot = slots.get((link.name or b"")[:width], -1)
        if slot <= last:
            msg = f"a link of a HAMT shard is named {link.name!r}: names must start with the slot number, in order"
            raise InvalidDataError(msg)
        last = slot
        found |= 1 << slot
    if found != int.from_bytes(data.data or b"", "big"):
        msg = f"a HAMT shard of fanout {layout.fanout} has {len(node.links)} links that do not match its bitfield"
        raise InvalidDataError(msg)
    return layout


def split_shard(node: Node, data: UnixFSData) -> tuple[list[Link], list[Link]]:
    """Split the links of a shard by what they link to.

    Returns:
        Links to files and directories, under their real names; and links to child shards.

    Raises:
        InvalidDataError: the links do not match the bitfield.
    """
    width = _check_shard(node, data).prefix_length
    values: list[Link] = []
    children: list[Link] = []
    for link in node.links:
        name = link.name or b""
        (values if len(name) > width else children).append(Link(link.cid, name[width:], link.size_bytes))
    return values, children


class ShardPosition(NamedTuple):
    """Position of a shard in a HAMT. A shard with two or more names is valid at one position only.

    Attributes:
        fanout: number of slots of every shard of the HAMT.
        depth: number of levels between the root shard and this one.
        hash_prefix: the bits that the hashes of all names below start with, ``log2(fanout)`` for each level.
    """

    fanout: int
    depth: int = 0
    hash_prefix: int = 0


def check_child_shard(cid: CID, fanout: int | None, wanted: int | None) -> None:
    """Check a block that a HAMT shard links to as a child shard.

    Args:
        cid: the CID of the block.
        fanout: the fanout of the block; None if it is not a HAMT shard.
        wanted: the fanout of the shard that links to the block.

    Raises:
        InvalidDataError: the block is not a HAMT shard, or has another fanout.
    """
    if fanout is None or fanout != wanted:
        msg = (
            f"{cid} is linked as the child of a HAMT shard of fanout {wanted}, but is not a HAMT shard of that fanout. "
            "Get the content from another source"
        )
        raise InvalidDataError(msg)


def check_names_of_shard(node: Node, data: UnixFSData, position: ShardPosition) -> list[ShardPosition]:
    """Check that every name of a shard is in the slot where a lookup by path searches for it.

    Args:
        node: the shard.
        data: the UnixFS fields of the shard, which ``split_shard`` has checked.
        position: the position of the shard.

    Returns:
        The positions of the child shards, in the order of ``split_shard``.

    Raises:
        InvalidDataError: a name is in the wrong slot, or the shard is deeper than the hash has bits.
    """
    layout = layout_of(data)
    layout.slot(0, position.depth)  # raises if the hash has no bits for this level
    width, shift = layout.prefix_length, _HASH_BITS - layout.bits * (position.depth + 1)
    slots, above = layout.slots, position.hash_prefix << layout.bits
    names: list[bytes] = []
    prefixes: list[int] = []
    children: list[ShardPosition] = []
    for link in node.links:
        name = link.name or b""
        prefix = above | slots[name[:width]]
        if len(name) == width:
            children.append(ShardPosition(layout.fanout, position.depth + 1, prefix))
        else:
            names.append(name[width:])
            prefixes.append(prefix)
    for name, name_hash, prefix in zip(names, murmur3_x64_64_many(names) if names else (), prefixes, strict=True):
        if name_hash >> shift != prefix:
            msg = f"the HAMT entry {name!r} is in the wrong slot: it is listed, but cannot be found by its path"
            raise InvalidDataError(msg)
    return children


def find_in_shard(node: Node, data: UnixFSData, name: bytes, depth: int) -> tuple[Link | None, bool]:
    """Look up a name in a shard ``depth`` levels below the root.

    Returns:
        The link in the name's slot, and whether it links to the named file or directory. If not, it links to the child
        shard to search next. ``(None, False)`` if the directory does not contain the name.

    Raises:
        InvalidDataError: the links do not match the bitfield.
    """
    layout = _check_shard(node, data)
    prefix = layout.prefix(layout.slot(murmur3_x64_64(name), depth))
    for link in node.links:
        if link.name == prefix + name:
            return link, True
        if link.name == prefix:
            return link, False
    return None, False
