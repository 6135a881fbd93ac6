"""Reading files out of a DAG: ranges and streams equal to the bytes, and nodes that contradict themselves."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data, encode_leaf, encode_symlink
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.file_reader import UnixFSFile, open_unixfs
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.errors import InvalidDataError, IsDirectoryError, NotFoundError
from support.blocks import Blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.profiles import Profile

SOME_BYTES = bytes(number * 7 % 251 for number in range(2000))
PROFILES = [replace(UNIXFS_V1_2025, max_links=3), replace(UNIXFS_V0_2015, max_links=2)]


def put_file(blocks: Blocks, data: bytes, chunk_bytes: int, profile: Profile = PROFILES[0]) -> CID:
    options = ImportOptions(profile=profile, chunker=FixedSizeChunker(chunk_bytes))
    with Importer(blocks, options) as importer:
        return importer.import_stream(io.BytesIO(data)).link.cid


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), st.integers(-50, 2200), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("read"), st.integers(-1, 700)),
        st.tuples(st.just("readinto"), st.integers(0, 700)),
    ),
    max_size=20,
)


@pytest.mark.parametrize("is_buffered", [True, False], ids=["buffered", "raw"])
@pytest.mark.parametrize("profile", PROFILES, ids=["v1", "v0"])
@given(size=st.integers(0, 2000), chunk_bytes=st.sampled_from([1, 3, 64, 1000, 5000]), steps=STEPS)
def test_any_seeks_and_reads_give_the_bytes(
    profile: Profile, is_buffered: bool, size: int, chunk_bytes: int, steps: Sequence[Any]
) -> None:
    if size // chunk_bytes > 500:
        chunk_bytes = 64
    data = SOME_BYTES[:size]
    blocks = Blocks()
    cid = put_file(blocks, data, chunk_bytes, profile)
    expected = io.BytesIO(data)
    ours: Any = open_unixfs(blocks, cid) if is_buffered else UnixFSFile(blocks, cid)
    for step in steps:
        outcomes = []
        for file in (expected, ours):
            try:
                outcomes.append(take_step(file, step))
            except ValueError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1]
    assert ours.tell() == expected.tell()


def take_step(file: Any, step: Sequence[Any]) -> Any:
    if step[0] == "seek":
        base = {0: 0, 1: file.tell(), 2: None}[step[2]]
        if base is not None and base + step[1] < 0:
            msg = "BytesIO clamps where files refuse"
            raise ValueError(msg)
        if step[2] == 2:
            return file.seek(max(step[1], -len(SOME_BYTES)) if step[1] > 0 else 0, 2)
        return file.seek(step[1], step[2])
    if step[0] == "read":
        return read_fully(file, step[1])
    return read_fully(file, step[1])


def read_fully(file: Any, size: int) -> bytes:
    """Read like a buffered file: a raw one may give less at a time."""
    if size < 0:
        return bytes(file.read())
    pieces = b""
    while len(pieces) < size:
        buffer = bytearray(size - len(pieces))
        count = file.readinto(buffer)
        if not count:
            break
        pieces += buffer[:count]
    return pieces


@pytest.mark.parametrize("profile", PROFILES, ids=["v1", "v0"])
def test_only_the_blocks_on_the_way_are_read(profile: Profile) -> None:
    blocks = Blocks()
    cid = put_file(blocks, SOME_BYTES, 10, profile)
    total = len(blocks.by_multihash)
    blocks.reads = 0
    with UnixFSFile(blocks, cid) as file:
        file.seek(1005)
        assert file.read(3) == SOME_BYTES[1005:1008]
        assert blocks.reads < 15 < total
        file.seek(0)
        blocks.reads = 0
        assert b"".join(file.pieces()) == SOME_BYTES
    assert blocks.reads <= total


def test_seeks_before_the_start_are_refused() -> None:
    blocks = Blocks()
    with UnixFSFile(blocks, put_file(blocks, b"abc", 1)) as file:
        for offset, whence in ((-1, 0), (-4, 2), (-1, 1)):
            with pytest.raises(ValueError, match="before the start"):
                file.seek(offset, whence)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
        assert file.seek(100) == 100
        assert file.read() == b""
        assert file.readable()
        assert file.seekable()
        assert not file.writable()


def node(blocks: Blocks, data: UnixFSData, *links: Link) -> CID:
    return blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)


def leaf(blocks: Blocks, data: bytes) -> Link:
    blocks.put(CID.of(data), data)
    return Link(CID.of(data), b"", len(data))


def test_shapes_that_we_do_not_make_but_others_do() -> None:
    """Bytes in inner nodes, raw nodes, empty parts, no stated size, leaves at different depths."""
    blocks = Blocks()
    inner = node(blocks, UnixFSData(NodeType.RAW, b"cd", 5, (3,)), leaf(blocks, b"efg"))
    root = node(
        blocks,
        UnixFSData(NodeType.FILE, b"ab", None, (5, 0, 1, 0)),
        Link(inner),
        leaf(blocks, b""),
        leaf(blocks, b"h"),
        leaf(blocks, b""),
    )
    with UnixFSFile(blocks, root) as file:
        assert file.read() == b"abcdefgh"
        for offset in range(9):
            file.seek(offset)
            assert file.read() == b"abcdefgh"[offset:]
    assert verify_dag(blocks, root).problems == []


def lying_files(blocks: Blocks) -> dict[str, CID]:
    part = leaf(blocks, b"four")
    wrapped = Link(blocks.put_node(encode_leaf(b"four"), DAG_PB))
    directory = Link(node(blocks, UnixFSData(NodeType.DIRECTORY)))
    symlink = Link(blocks.put_node(encode_symlink(b"four"), DAG_PB))
    file = NodeType.FILE
    return {
        "total too large": node(blocks, UnixFSData(file, None, 9, (4,)), part),
        "total too small": node(blocks, UnixFSData(file, None, 3, (4,)), part),
        "part too large": node(blocks, UnixFSData(file, None, 5, (5,)), part),
        "part too small": node(blocks, UnixFSData(file, None, 3, (3,)), part),
        "wrapped part too large": node(blocks, UnixFSData(file, None, 5, (5,)), wrapped),
        "part of no bytes": node(blocks, UnixFSData(file, None, 4, (4,)), leaf(blocks, b"")),
        "own bytes not counted": node(blocks, UnixFSData(file, b"own", 4, (4,)), part),
        "leaf that lies": node(blocks, UnixFSData(file, b"bytes", 1 << 60)),
        "directory as part": node(blocks, UnixFSData(file, None, 4, (4,)), directory),
        "symlink as part": node(blocks, UnixFSData(file, None, 4, (4,)), symlink),
        "huge part": node(blocks, UnixFSData(file, None, 1 << 63, (1 << 63,)), part),
        "sizes that wrap around": node(blocks, UnixFSData(file, None, 4, ((1 << 64) - 1, 5)), part, part),
        "fewer sizes than links": node(blocks, UnixFSData(file, None, 4, (4,)), part, part),
        "more sizes than links": node(blocks, UnixFSData(file, None, 8, (4, 4)), part),
    }


@pytest.mark.parametrize("case", list(lying_files(Blocks())))
def test_sizes_that_contradict_each_other_are_refused(case: str) -> None:
    blocks = Blocks()
    cid = lying_files(blocks)[case]
    with pytest.raises((InvalidDataError, IsDirectoryError)):
        UnixFSFile(blocks, cid).read()
    problems = verify_dag(blocks, cid).problems
    assert problems, "what cannot be read does not verify"


def test_depth_bombs_are_refused() -> None:
    blocks = Blocks()
    link = leaf(blocks, b"x")
    for _ in range(5000):
        link = Link(node(blocks, UnixFSData(NodeType.FILE, None, 1, (1,)), link))
    with UnixFSFile(blocks, link.cid) as file, pytest.raises(InvalidDataError, match="more than 128 levels"):
        file.read()
    assert blocks.reads < 200


def test_deep_files_that_are_no_bombs_are_read() -> None:
    blocks = Blocks()
    link = leaf(blocks, b"x")
    for _ in range(100):
        link = Link(node(blocks, UnixFSData(NodeType.FILE, None, 1, (1,)), link))
    assert UnixFSFile(blocks, link.cid).read() == b"x"


def test_what_is_no_file_is_not_opened() -> None:
    blocks = Blocks()
    with pytest.raises(IsDirectoryError):
        UnixFSFile(blocks, node(blocks, UnixFSData(NodeType.DIRECTORY)))
    with pytest.raises(InvalidDataError, match="symlink"):
        UnixFSFile(blocks, blocks.put_node(encode_symlink(b"x"), DAG_PB))
    with pytest.raises(NotFoundError):
        UnixFSFile(blocks, CID.of(b"not here"))


def test_an_identity_cid_is_a_file() -> None:
    assert open_unixfs(Blocks(), CID(1, 0x55, b"\0\x05hello")).read() == b"hello"
