"""HAMT directories: every name is found and no other, the hash is the known one, malformed shards are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, Node, decode_node, encode_node
from mlflow_ipfs.content.codecs.hamt import HamtBuilder, ShardLayout, find_in_shard, split_shard
from mlflow_ipfs.content.codecs.murmur3 import murmur3_x64_64
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, decode_unixfs, encode_data
from mlflow_ipfs.content.dag import find_link, iterate_directory, read_unixfs, resolve
from mlflow_ipfs.errors import InvalidDataError, NotFoundError
from support.blocks import Blocks
from support.random_trees import names

LEAF = CID.of(b"leaf")
DEEP = (b"c2132100", b"c1048021")  # their hashes begin with the same 40 bits
FANOUTS = [8, 16, 64, 256, 512, 1024]


def make_directory(blocks: Blocks, found: list[bytes], fanout: int = 256) -> CID:
    builder = HamtBuilder(lambda block: blocks.put_node(block, DAG_PB), fanout)
    return builder.build([Link(LEAF, name, 4) for name in found]).cid


def listed(blocks: Blocks, root: CID) -> list[bytes]:
    return [link.name or b"" for link in iterate_directory(blocks, read_unixfs(blocks, root))]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", 0),
        (b"hello", 0xCBD8A7B341BD9B02),
        (b"hello, world", 0x342FAC623A5EBC8E),
        (b"19 Jan 2038 at 3:14:07 AM", 0xB89E5988B737AFFC),
        (b"The quick brown fox jumps over the lazy dog.", 0xCD99481F9EE902C9),
    ],
)
def test_murmur3_as_published(data: bytes, digest: int) -> None:
    """From the tests of https://github.com/spaolacci/murmur3, which Kubo uses."""
    assert murmur3_x64_64(data) == digest


@given(found=st.sets(names(), min_size=1, max_size=60), fanout=st.sampled_from(FANOUTS), other=names())
def test_all_names_are_found_and_no_other(found: set[bytes], fanout: int, other: bytes) -> None:
    blocks = Blocks()
    root = make_directory(blocks, sorted(found), fanout)
    assert sorted(listed(blocks, root)) == sorted(found)
    directory = read_unixfs(blocks, root)
    for name in found:
        link = find_link(blocks, directory, name.decode("utf-8", "surrogateescape"))
        assert (link.cid, link.name and link.name.endswith(name)) == (LEAF, True)
    if other not in found:
        with pytest.raises(NotFoundError):
            find_link(blocks, directory, other.decode("utf-8", "surrogateescape"))


@given(found=st.sets(names(), min_size=1, max_size=40), data=st.randoms())
def test_the_order_of_names_does_not_matter(found: set[bytes], data: object) -> None:
    shuffled = sorted(found)
    data.shuffle(shuffled)  # type: ignore[attr-defined]
    assert make_directory(Blocks(), shuffled) == make_directory(Blocks(), sorted(found))


@pytest.mark.parametrize("fanout", FANOUTS)
def test_names_that_share_forty_bits_of_their_hash(fanout: int) -> None:
    blocks = Blocks()
    root = make_directory(blocks, list(DEEP), fanout)
    assert sorted(listed(blocks, root)) == sorted(DEEP)
    assert len(blocks.by_multihash) == 40 // ShardLayout(fanout).bits + 1, "one shard for each level that they share"
    for name in DEEP:
        assert resolve(blocks, root, name.decode()) == LEAF
    with pytest.raises(NotFoundError):
        resolve(blocks, root, "c2132101")


def test_names_with_equal_hashes_cannot_be_told_apart() -> None:
    """No such names are known, but whoever finds two must not make the builder run for ever."""
    builder = HamtBuilder(lambda block: CID.of(block, DAG_PB), 256)
    link = Link(LEAF, b"same", 4)
    with pytest.raises(InvalidDataError, match="collide"):
        builder.build([link, link])


@pytest.mark.parametrize("fanout", [0, 1, 4, 7, 100, 257, 2048, 1 << 40])
def test_fanouts_that_cannot_be(fanout: int) -> None:
    with pytest.raises(InvalidDataError, match="fanout"):
        ShardLayout(fanout)


def shard_of(found: list[bytes], fanout: int = 256) -> tuple[Blocks, Node, UnixFSData]:
    blocks = Blocks()
    node = decode_node(blocks.get(make_directory(blocks, found, fanout)))
    return blocks, node, decode_unixfs(node)


def damage(node: Node, data: UnixFSData, case: str) -> tuple[tuple[Link, ...], UnixFSData]:
    links = node.links
    bits = int.from_bytes(data.data or b"", "big")
    changed = {
        "another hash function": (links, replace(data, hash_type=0x12)),
        "no hash function": (links, replace(data, hash_type=None)),
        "no fanout": (links, replace(data, fanout=None)),
        "odd fanout": (links, replace(data, fanout=100)),
        "huge fanout": (links, replace(data, fanout=1 << 40)),
        "other fanout": (links, replace(data, fanout=16)),
        "a bit too many": (links, replace(data, data=(bits | bits << 1).to_bytes(33, "big"))),
        "a bit too few": (links, replace(data, data=(bits & (bits - 1)).to_bytes(32, "big"))),
        "no bitfield": (links, replace(data, data=None)),
        "bits beyond the fanout": (links, replace(data, data=b"\x01" + (data.data or b"").rjust(32, b"\0"))),
        "link without prefix": ((replace(links[0], name=b""), *links[1:]), data),
        "prefix in lower case": (tuple(replace(each, name=(each.name or b"").lower()) for each in links), data),
        "links out of order": (links[::-1], data),
        "link twice": ((*links, links[-1]), data),
        "one link missing": (links[1:], data),
        "nameless links": (tuple(replace(each, name=None) for each in links), data),
    }
    return changed[case]


CASES = [
    "another hash function",
    "no hash function",
    "no fanout",
    "odd fanout",
    "huge fanout",
    "other fanout",
    "a bit too many",
    "a bit too few",
    "no bitfield",
    "bits beyond the fanout",
    "link without prefix",
    "prefix in lower case",
    "links out of order",
    "link twice",
    "one link missing",
    "nameless links",
]


@pytest.mark.parametrize("case", CASES)
def test_malformed_shards_are_refused_by_every_reader(case: str) -> None:
    found = [b"name-%d" % number for number in range(12)]
    blocks, node, data = shard_of(found)
    links, data = damage(node, data, case)
    bad = blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)
    with pytest.raises(InvalidDataError):
        listed(blocks, bad)
    with pytest.raises(InvalidDataError):
        resolve(blocks, bad, "name-1")
    for call in (lambda: split_shard(Node(links, None), data), lambda: find_in_shard(Node(links, None), data, b"x", 0)):
        with pytest.raises(InvalidDataError):
            call()


def nest(blocks: Blocks, child: CID, slot: int, fanout: int = 256) -> CID:
    """A shard with one child shard."""
    layout = ShardLayout(fanout)
    bitfield = (1 << slot).to_bytes(slot // 8 + 1, "big")
    data = UnixFSData(NodeType.HAMT_SHARD, bitfield, hash_type=0x22, fanout=fanout)
    return blocks.put_node(encode_node([Link(child, layout.prefix(slot), 1)], encode_data(data)), DAG_PB)


def test_more_levels_than_the_hash_has_bits() -> None:
    blocks = Blocks()
    root = make_directory(blocks, [b"x"])
    for _ in range(20):
        root = nest(blocks, root, murmur3_x64_64(b"x") >> 56)
    with pytest.raises(InvalidDataError, match="levels"):
        listed(blocks, root)
    with pytest.raises((InvalidDataError, NotFoundError)):
        resolve(blocks, root, "x")


def test_a_child_of_another_fanout_or_kind_is_refused() -> None:
    blocks = Blocks()
    name = b"x"
    slot = murmur3_x64_64(name) >> 56
    directory = blocks.put_node(encode_node([], encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB)
    for child in (make_directory(blocks, [name], 16), directory):
        root = nest(blocks, child, slot)
        with pytest.raises(InvalidDataError, match="HAMT shard"):
            listed(blocks, root)
        with pytest.raises(InvalidDataError, match="HAMT shard"):
            resolve(blocks, root, "x")


@pytest.mark.parametrize("bad", [b"..", b".", b"a/b", b"a\0b"])
def test_invalid_names_are_rejected(bad: bytes) -> None:
    blocks = Blocks()
    root = make_directory(blocks, [b"good", bad])
    with pytest.raises(InvalidDataError, match="not a valid name"):
        listed(blocks, root)
    assert not verify_dag(blocks, root).ok


def test_the_same_name_in_two_shards_is_refused() -> None:
    """One of them is in the wrong place, so that only a listing would show it."""
    blocks = Blocks()
    inner = make_directory(blocks, [b"x"])
    slot = murmur3_x64_64(b"x") >> 56
    other = (slot + 1) % 256
    layout = ShardLayout(256)
    links = sorted(
        [Link(LEAF, layout.prefix(slot) + b"x", 4), Link(inner, layout.prefix(other), 1)],
        key=lambda link: link.name or b"",
    )
    bits = 1 << slot | 1 << other
    data = UnixFSData(NodeType.HAMT_SHARD, bits.to_bytes(32, "big"), hash_type=0x22, fanout=256)
    root = blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)
    with pytest.raises(InvalidDataError, match="twice"):
        listed(blocks, root)
