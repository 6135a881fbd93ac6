"""dag-pb and UnixFS: round trips, what protobuf allows, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs import dag_pb
from mlflow_ipfs.content.codecs.dag_pb import (
    Link,
    Node,
    decode_fields,
    decode_node,
    decode_uint64,
    encode_link,
    encode_node,
)
from mlflow_ipfs.content.codecs.unixfs import (
    NodeType,
    UnixFSData,
    decode_data,
    decode_unixfs,
    encode_data,
    encode_leaf,
    encode_symlink,
    leaf_frame,
)
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable

UINT64 = st.integers(0, (1 << 64) - 1)
ANY_CID = st.builds(
    lambda data, version, codec: CID.of(data, codec, version=version) if version else CID.of(data, DAG_PB, version=0),
    st.binary(max_size=8),
    st.sampled_from([0, 1]),
    st.sampled_from([0x55, 0x70, 0x71]),
)
NAMES = st.integers(100, 300).map(lambda length: b"n" * length)  # about where a length takes two bytes
LINKS = st.builds(Link, ANY_CID, st.one_of(st.none(), st.binary(max_size=20), NAMES), st.one_of(st.none(), UINT64))


@given(links=st.lists(LINKS, max_size=6), data=st.one_of(st.none(), st.binary(max_size=50)))
def test_a_node_is_read_as_it_was_written(links: list[Link], data: bytes | None) -> None:
    block = encode_node(links, data)
    assert decode_node(block) == Node(tuple(links), data)


def test_links_stand_before_data() -> None:
    link = Link(CID.of(b"x"), b"name", 1)
    assert encode_node([link], b"data") == encode_link(link) + b"\x0a\x04data"


@given(block=st.binary(max_size=120))
def test_any_bytes_are_a_node_or_our_error(block: bytes) -> None:
    try:
        node = decode_node(block)
    except InvalidDataError:
        return
    assert decode_node(encode_node(node.links, node.data)) == node


@given(links=st.lists(LINKS, min_size=1, max_size=3), cut=st.integers(0, 300), flip=st.integers(0, 255))
def test_damaged_nodes_give_our_error_or_another_node(links: list[Link], cut: int, flip: int) -> None:
    block = bytearray(encode_node(links, b"\x08\x01"))
    block[cut % len(block)] ^= flip
    for damaged in (bytes(block), bytes(block[: cut % len(block)])):
        try:
            node = decode_node(damaged)
        except InvalidDataError:
            continue
        assert isinstance(node, Node)


@given(
    link=LINKS, place=st.integers(0, 400), change=st.sampled_from(["cut", "flip", "insert"]), byte=st.integers(0, 255)
)
def test_usual_links_are_read_as_any_other(link: Link, place: int, change: str, byte: int) -> None:
    body = bytearray(decode_one_field(encode_link(link)))
    place %= len(body)
    if change == "cut":
        del body[place:]
    elif change == "flip":
        body[place] ^= byte
    else:
        body.insert(place, byte)
    assert read_with(dag_pb._decode_link, bytes(body)) == read_with(dag_pb._decode_any_link, bytes(body))


def decode_one_field(data: bytes) -> bytes:
    [(_, _, payload)] = decode_fields(data)
    assert isinstance(payload, bytes)
    return payload


def read_with(decode: Callable[[bytes], Link], body: bytes) -> Link | str:
    try:
        return decode(body)
    except InvalidDataError as error:
        return str(error)


LINK = encode_link(Link(CID.of(b"x"), b"a", 1))
HASH = b"\x0a\x24" + bytes(CID.of(b"x"))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\x0a\x05abc", "ends early"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends early"),
        (b"\x0a", "ends early or is too long"),
        (b"\xff" * 11, "too long"),
        (b"\x0a\x01a\x0a\x01b", "field 1 is unknown or repeated"),  # two Data fields
        (b"\x1a\x01a", "field 3 is unknown or repeated"),
        (b"\x08\x01", "wire type 0"),
        (b"\x0b", "wire type 3 .*unknown"),
        (b"\x0f", "wire type 7 .*unknown"),
        (b"\x09abc", "ends early"),
        (b"\x12\x00", "has no CID"),
        (b"\x12\x03\x12\x01a", "has no CID"),
        (b"\x12\x02\x0a\x00", "invalid CID"),
        (b"\x12\x24" + b"\x0a\x22\x11\x20" + bytes(32), "invalid CID"),
        (b"\x12\x28" + HASH + b"\x20\x01", "field 4 of a dag-pb link is unknown"),
        (b"\x12\x28" + HASH + b"\x10\x01", "field 2 of a dag-pb link .* wrong wire type"),  # a name that is a number
    ],
)
def test_malformed_nodes_are_refused(block: bytes, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        decode_node(block)


def test_data_before_links_can_be_read() -> None:
    """Very old nodes have it so."""
    assert decode_node(b"\x0a\x02\x08\x01" + LINK).links == decode_node(LINK + b"\x0a\x02\x08\x01").links


def test_protobuf_numbers_have_64_bits() -> None:
    assert decode_uint64(b"\xff" * 9 + b"\x01", 0) == ((1 << 64) - 1, 10)
    assert decode_uint64(b"\x81\x00", 0) == (1, 2), "protobuf does not ask for the shortest form"
    with pytest.raises(InvalidDataError):
        decode_uint64(b"\x80" * 10, 0)


@given(data=st.binary(max_size=60))
def test_fields_of_any_bytes_end(data: bytes) -> None:
    try:
        fields = list(decode_fields(data))
    except InvalidDataError:
        return
    assert len(fields) <= len(data)


TIMES = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1).map(lambda seconds: seconds * 1_000_000_000),
    st.integers(-(10**18), 10**19),
)
UNIXFS = st.builds(
    UnixFSData,
    st.sampled_from(NodeType),
    st.one_of(st.none(), st.binary(max_size=30)),
    st.one_of(st.none(), UINT64),
    st.lists(UINT64, max_size=5).map(tuple),
    st.one_of(st.none(), UINT64),
    st.one_of(st.none(), UINT64),
    st.one_of(st.none(), st.integers(1, 0o7777)),
    st.one_of(st.none(), TIMES),
)


@given(data=UNIXFS)
def test_unixfs_data_is_read_as_it_was_written(data: UnixFSData) -> None:
    assert decode_data(encode_data(data)) == data


@given(body=st.binary(max_size=80))
def test_any_bytes_are_unixfs_or_our_error(body: bytes) -> None:
    try:
        data = decode_data(body)
    except InvalidDataError:
        return
    assert isinstance(data.type, NodeType)


def test_block_sizes_may_be_packed() -> None:
    assert decode_data(b"\x08\x02\x22\x03\x05\x80\x01").block_sizes == (5, 128)
    with pytest.raises(InvalidDataError):
        decode_data(b"\x08\x02\x22\x02\x05\x80")


def test_fields_that_nobody_knows_are_skipped() -> None:
    assert decode_data(b"\x08\x01\xf8\x01\x07\xfa\x01\x02ab") == UnixFSData(NodeType.DIRECTORY)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Type is None"),
        (b"\x12\x01a", "Type is None"),
        (b"\x08\x06", "Type is 6"),
        (b"\x08\xff\xff\x03", "Type is 65535"),
        (b"\x08\x02\x42\x07\x08\x01\x15\xff\xff\xff\xff", "4294967295 nanoseconds"),
        (b"\x08\x02\x42\x07\x08\x01\x15\x00\xca\x9a\x3b", "1000000000 nanoseconds"),
    ],
)
def test_malformed_unixfs_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        decode_data(body)


def test_only_permission_bits_of_a_mode_count() -> None:
    assert decode_data(b"\x08\x02\x38" + b"\xa4\x83\x02").mode == 0o644  # 0o100644


def test_a_node_without_data_is_no_unixfs() -> None:
    with pytest.raises(InvalidDataError, match="no Data"):
        decode_unixfs(decode_node(LINK))


def test_a_file_has_a_size_for_each_link() -> None:
    body = encode_data(UnixFSData(NodeType.FILE, size_bytes=3, block_sizes=(1, 2)))
    with pytest.raises(InvalidDataError, match="1 links and 2 block sizes"):
        decode_unixfs(decode_node(encode_node([Link(CID.of(b"x"))], body)))


@given(payload=st.binary(max_size=300))
def test_a_wrapped_leaf_is_a_file_node_around_the_bytes(payload: bytes) -> None:
    block = encode_leaf(payload)
    prefix, suffix = leaf_frame(len(payload))
    assert block == prefix + payload + suffix
    data = decode_unixfs(decode_node(block))
    assert (data.type, data.data or b"", data.size_bytes) == (NodeType.FILE, payload, len(payload))


@pytest.mark.parametrize("length", [0, 1, 119, 120, 127, 128, 16_383, 16_384, 262_144, 1 << 20])
def test_leaf_frames_at_the_edges_of_their_varints(length: int) -> None:
    data = decode_unixfs(decode_node(encode_leaf(bytes(length))))
    assert data.size_bytes == len(data.data or b"") == length


def test_symlinks() -> None:
    data = decode_unixfs(decode_node(encode_symlink(b"../x", mtime_ns=-1)))
    assert (data.type, data.data, data.mtime_ns, data.size_bytes) == (NodeType.SYMLINK, b"../x", -1, None)
