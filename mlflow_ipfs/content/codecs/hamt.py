"""HAMT: directories too large for one block, sharded by a hash of their names.

A shard has ``fanout`` slots. A name's slot is the next ``log2(fanout)`` bits of its hash; a slot
holds the link to the file, or to a child shard when several names meet there. Link names start
with the slot in hexadecimal, padded to the width of the largest slot.
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
    """How one HAMT cuts its hashes: ``fanout`` slots a shard, a power of two and a multiple of 8."""

    fanout: int

    def __post_init__(self) -> None:
        if not 8 <= self.fanout <= MAX_FANOUT or self.fanout & (self.fanout - 1):
            msg = f"a HAMT fanout of {self.fanout} is not a power of two from 8 to {MAX_FANOUT}"
            raise InvalidDataError(msg)

    @property
    def bits(self) -> int:
        """Bits of the hash that one level uses."""
        return self.fanout.bit_length() - 1

    @property
    def max_depth(self) -> int:
        """How many levels a 64-bit hash is good for."""
        return _HASH_BITS // self.bits

    @property
    def prefix_length(self) -> int:
        """Characters of the slot number at the start of a link's name."""
        return len(f"{self.fanout - 1:X}")

    def slot(self, name_hash: int, depth: int) -> int:
        """The slot of a name in a shard ``depth`` levels below the root."""
        shift = _HASH_BITS - self.bits * (depth + 1)
        if shift < 0:
            msg = f"a HAMT is deeper than {self.max_depth} levels: its names collide or it is malformed"
            raise InvalidDataError(msg)
        return name_hash >> shift & (self.fanout - 1)

    def prefix(self, slot: int) -> bytes:
        """The slot number as link names carry it."""
        return f"{slot:0{self.prefix_length}X}".encode("ascii")

    @property
    def slots(self) -> dict[bytes, int]:
        """Slot numbers by what link names carry, in order."""
        return _slots(self)


@cache  # a layout has one of eight fanouts
def _slots(layout: ShardLayout) -> dict[bytes, int]:
    return {layout.prefix(slot): slot for slot in range(layout.fanout)}


def layout_of(data: UnixFSData) -> ShardLayout:
    """The layout that a shard's own fields state.

    Raises:
        InvalidDataError: another hash function, or a fanout that cannot be.
    """
    if data.hash_type != MURMUR3_X64_64:
        msg = f"a HAMT directory uses hash function {data.hash_type}; only {MURMUR3_X64_64} (murmur3-x64-64) is defined"
        raise InvalidDataError(msg)
    return ShardLayout(data.fanout or 0)


class HamtBuilder:
    """Builds the shards of one directory.

    Args:
        put: keeps a dag-pb block and returns its CID.
        fanout: slots of a shard.
    """

    def __init__(self, put: Callable[[bytes], CID], fanout: int) -> None:
        self._put = put
        self._layout = ShardLayout(fanout)

    def build(self, links: Sequence[Link], *, mode: int | None = None, mtime_ns: int | None = None) -> Link:
        """Shard the links of a directory; every name must be there once.

        Returns:
            A nameless link to the root shard, with the cumulative size of all blocks below.
        """
        hashed = [(murmur3_x64_64(link.name or b""), link) for link in links]
        cid, dag_bytes = self._shard(hashed, 0, mode, mtime_ns)
        return Link(cid, b"", dag_bytes)

    def _shard(
        self, hashed: list[tuple[int, Link]], depth: int, mode: int | None = None, mtime_ns: int | None = None
    ) -> tuple[CID, int]:
        """Build one shard and those below it. Returns its CID, and the size of all its blocks in bytes."""
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
        """The encoded link of one slot, and the size of all blocks below it in bytes."""
        prefix = self._layout.prefix(slot)
        if len(hashed) == 1:
            link = hashed[0][1]
            encoded = encode_link_fields(bytes(link.cid), prefix + (link.name or b""), link.size_bytes)
            return encoded, link.size_bytes or 0
        cid, dag_bytes = self._shard(hashed, depth + 1)
        return encode_link_fields(bytes(cid), prefix, dag_bytes), dag_bytes


def _check_shard(node: Node, data: UnixFSData) -> ShardLayout:
    """Check that a shard's links are those of the slots that its bitfield names, in order; returns its layout."""
    layout = layout_of(data)
    slots, width = layout.slots, layout.prefix_length
    last, found = -1, 0
    for link in node.links:
        slot = slots.get((link.name or b"")[:width], -1)
        if slot <= last:
            msg = f"a link of a HAMT shard is named {link.name!r}: names start with the number of their slot, in order"
            raise InvalidDataError(msg)
        last = slot
        found |= 1 << slot
    if found != int.from_bytes(data.data or b"", "big"):
        msg = f"a HAMT shard of fanout {layout.fanout} has {len(node.links)} links, which is not what its bitfield says"
        raise InvalidDataError(msg)
    return layout


def split_shard(node: Node, data: UnixFSData) -> tuple[list[Link], list[Link]]:
    """Tell a shard's links apart.

    Returns:
        Links to files and directories, under their real names; and links to child shards.

    Raises:
        InvalidDataError: the links are not those of the slots that the bitfield names.
    """
    width = _check_shard(node, data).prefix_length
    values: list[Link] = []
    children: list[Link] = []
    for link in node.links:
        name = link.name or b""
        (values if len(name) > width else children).append(Link(link.cid, name[width:], link.size_bytes))
    return values, children


class ShardPlace(NamedTuple):
    """Position of a shard in a HAMT. A shard that holds two names or more fits into one position only.

    Attributes:
        fanout: slots of every shard of the HAMT.
        depth: levels between the root shard and this one.
        hash_prefix: the bits that the hashes of all names below start with, ``log2(fanout)`` for each level.
    """

    fanout: int
    depth: int = 0
    hash_prefix: int = 0


def check_child_shard(cid: CID, fanout: int | None, wanted: int | None) -> None:
    """Check a block that a HAMT shard links to as a child shard.

    Args:
        cid: the block.
        fanout: its fanout; None if the block is not a HAMT shard.
        wanted: the fanout of the shard that links to it.

    Raises:
        InvalidDataError: the block is not a HAMT shard, or has another fanout.
    """
    if fanout is None or fanout != wanted:
        msg = f"{cid} is linked where a HAMT shard of fanout {wanted} is needed, and is not one"
        raise InvalidDataError(msg)


def check_names_of_shard(node: Node, data: UnixFSData, place: ShardPlace) -> list[ShardPlace]:
    """Check that every name of a shard is in the slot where a look-up by path searches for it.

    Args:
        node: the shard.
        data: its UnixFS fields, which ``split_shard`` has checked.
        place: where the shard is.

    Returns:
        The places of its child shards, in the order of ``split_shard``.

    Raises:
        InvalidDataError: a name is in another slot, or the shard is deeper than the hash has bits.
    """
    layout = layout_of(data)
    layout.slot(0, place.depth)  # raises if the hash has no bits for this level
    width, shift = layout.prefix_length, _HASH_BITS - layout.bits * (place.depth + 1)
    slots, above = layout.slots, place.hash_prefix << layout.bits
    names: list[bytes] = []
    prefixes: list[int] = []
    children: list[ShardPlace] = []
    for link in node.links:
        name = link.name or b""
        prefix = above | slots[name[:width]]
        if len(name) == width:
            children.append(ShardPlace(layout.fanout, place.depth + 1, prefix))
        else:
            names.append(name[width:])
            prefixes.append(prefix)
    for name, name_hash, prefix in zip(names, murmur3_x64_64_many(names) if names else (), prefixes, strict=True):
        if name_hash >> shift != prefix:
            msg = f"the HAMT entry {name!r} is in the wrong slot: it is listed, and cannot be found by its path"
            raise InvalidDataError(msg)
    return children


def find_in_shard(node: Node, data: UnixFSData, name: bytes, depth: int) -> tuple[Link | None, bool]:
    """Look a name up in one shard, ``depth`` levels below the root.

    Returns:
        The link in the name's slot, and whether it is the thing itself (else a child shard to
        look into next); ``(None, False)`` when the directory has no such name.

    Raises:
        InvalidDataError: the links are not those of the slots that the bitfield names.
    """
    layout = _check_shard(node, data)
    prefix = layout.prefix(layout.slot(murmur3_x64_64(name), depth))
    for link in node.links:
        if link.name == prefix + name:
            return link, True
        if link.name == prefix:
            return link, False
    return None, False
