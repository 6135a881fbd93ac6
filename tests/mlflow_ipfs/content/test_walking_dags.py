"""Finding paths, visiting blocks and verifying, in DAGs that may be hostile or damaged."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.checking.compare import compare_with_disk
from mlflow_ipfs.content.checking.completeness import find_missing
from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data, encode_symlink
from mlflow_ipfs.content.dag import (
    decode_name,
    encode_name,
    find_link,
    iterate_directory,
    read_unixfs,
    resolve,
    split_path,
    walk_blocks,
)
from mlflow_ipfs.errors import (
    IntegrityError,
    InvalidDataError,
    InvalidPathError,
    MlflowIpfsError,
    NotDirectoryError,
    NotFoundError,
)
from support.blocks import Blocks, import_into
from vector_trees import build

if TYPE_CHECKING:
    from pathlib import Path


class CheckedBlocks(Blocks):
    """Verifies what it gives out, as every store does."""

    def get(self, cid: CID) -> bytes:
        data = super().get(cid)
        cid.verify(data)
        return data


def directory_of(blocks: Blocks, *entries: tuple[bytes, CID]) -> CID:
    found = [Link(cid, name, 1) for name, cid in entries]
    return blocks.put_node(encode_node(found, encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB)


def leaf(blocks: Blocks, data: bytes = b"data") -> CID:
    blocks.put(CID.of(data), data)
    return CID.of(data)


def chain(blocks: Blocks, depth: int, name: bytes = b"d") -> CID:
    root = leaf(blocks)
    for _ in range(depth):
        root = directory_of(blocks, (name, root))
    return root


@given(name=st.binary(max_size=20))
def test_every_name_has_a_text_and_every_text_its_name(name: bytes) -> None:
    assert encode_name(decode_name(name)) == name


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
def test_text_that_stands_for_no_bytes(name: str) -> None:
    with pytest.raises(InvalidPathError, match="Unicode"):
        encode_name(name)
    blocks = Blocks()
    with pytest.raises(InvalidPathError):
        resolve(blocks, directory_of(blocks), name)


@pytest.mark.parametrize("path", ["..", "a/..", "../a", "a/../b", ".", "a/.", "a\0b", "a/\0"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(InvalidPathError):
        split_path(path)


@pytest.mark.parametrize(
    ("path", "parts"), [("", []), ("/", []), ("a", ["a"]), ("/a//b/", ["a", "b"]), ("...", ["..."])]
)
def test_paths_that_are_split(path: str, parts: list[str]) -> None:
    assert split_path(path) == parts


def test_paths_lead_to_their_cids() -> None:
    blocks = Blocks()
    file = leaf(blocks)
    inner = directory_of(blocks, (b"f", file), ("é".encode(), file), (b"\xff", file))
    root = directory_of(blocks, (b"inner", inner), (b"link", blocks.put_node(encode_symlink(b"inner"), DAG_PB)))
    assert resolve(blocks, root) == root
    assert resolve(blocks, root, "inner/") == inner
    for name in ("f", "é", "\udcff"):
        assert resolve(blocks, root, f"/inner/{name}") == file
    for path, error, words in (
        ("inner/no", NotFoundError, "inner/no"),
        ("inner/e\u0301", NotFoundError, "no entry"),  # another name, though it looks the same
        ("inner/f/deeper", NotDirectoryError, "inner/f/deeper"),
        ("link/f", NotDirectoryError, "not a directory"),
    ):
        with pytest.raises(error, match=words):
            resolve(blocks, root, path)
    blocks.by_multihash.pop(inner.multihash)
    with pytest.raises(NotFoundError, match="inner/f"):
        resolve(blocks, root, "inner/f")


def test_what_is_no_directory_has_no_entries() -> None:
    blocks = Blocks()
    file = read_unixfs(blocks, leaf(blocks))
    with pytest.raises(NotDirectoryError):
        list(iterate_directory(blocks, file))
    with pytest.raises(NotDirectoryError):
        find_link(blocks, file, "x")


@pytest.mark.parametrize(
    ("block", "codec"),
    [(b"", DAG_PB), (b"\x0a\x00", DAG_PB), (b"\xff", DAG_PB), (b"\xa0", DAG_CBOR), (b"x", 0x300000), (b"x", 0x72)],
)
def test_blocks_that_are_no_unixfs(block: bytes, codec: int) -> None:
    blocks = Blocks()
    with pytest.raises(InvalidDataError):
        read_unixfs(blocks, blocks.put_node(block, codec))


@given(block=st.binary(max_size=80))
def test_any_block_gives_its_links_or_our_error(block: bytes) -> None:
    for codec in (RAW, DAG_PB, DAG_CBOR, 0x72, 0x0129):
        try:
            assert all(isinstance(cid, CID) for cid in links(CID.of(block, codec), block))
        except InvalidDataError as error:
            assert str(CID.of(block, codec)) in str(error)  # noqa: PT017 - most bytes have links or are malformed


@given(block=st.binary(max_size=80))
def test_any_block_is_walked_and_verified_without_other_errors(block: bytes) -> None:
    blocks = Blocks()
    for codec in (RAW, DAG_PB, DAG_CBOR):
        cid = blocks.put_node(block, codec)
        verify_dag(blocks, cid)
        try:
            list(walk_blocks(blocks, cid))
            find_missing(blocks, cid)
            resolve(blocks, cid, "a/b")
        except MlflowIpfsError:
            continue


def test_every_block_is_visited_once_in_order() -> None:
    blocks = Blocks()
    one, two = leaf(blocks, b"one"), leaf(blocks, b"two")
    inner = directory_of(blocks, (b"x", one), (b"y", two))
    root = directory_of(blocks, (b"a", one), (b"b", inner), (b"c", inner))
    assert [cid for cid, _ in walk_blocks(blocks, root)] == [root, one, inner, two]


def test_walking_goes_on_after_a_bad_block_if_told_to() -> None:
    blocks = Blocks()
    one, two = leaf(blocks, b"one"), leaf(blocks, b"two")
    root = directory_of(blocks, (b"a", one), (b"b", two))
    del blocks.by_multihash[one.multihash]
    with pytest.raises(NotFoundError):
        list(walk_blocks(blocks, root))
    bad: list[CID] = []
    assert [cid for cid, _ in walk_blocks(blocks, root, on_error=lambda cid, _: bad.append(cid))] == [root, two]
    assert bad == [one]
    assert find_missing(blocks, root) == one


def test_depth_bombs_are_walked_without_pythons_stack() -> None:
    blocks = Blocks()
    root = chain(blocks, 20_000)
    assert sum(1 for _ in walk_blocks(blocks, root)) == 20_001
    assert find_missing(blocks, root) is None


def test_depth_bombs_with_long_names_do_not_verify_and_take_no_time() -> None:
    blocks = Blocks()
    root = chain(blocks, 10_000, b"n" * 1000)
    start = time.monotonic()
    report = verify_dag(blocks, root)
    assert [problem.reason for problem in report.problems] == ["directories are nested deeper than 2048 levels"]
    assert time.monotonic() - start < 20


def test_breadth_bombs_are_verified_in_one_pass() -> None:
    """60 directories that name the next one twice each: 2**60 paths, 61 blocks."""
    blocks = Blocks()
    root = leaf(blocks)
    for _ in range(60):
        root = directory_of(blocks, (b"a", root), (b"b", root))
    report = verify_dag(blocks, root)
    [problem] = report.problems  # no disk holds so many
    assert f"{2**61 - 2} files and directories" in problem.reason
    assert (problem.cid, problem.path, report.blocks) == (root, "", 61)
    assert sum(1 for _ in walk_blocks(blocks, root)) == 61
    assert find_missing(blocks, root) is None


def test_long_chains_of_records_verify() -> None:
    """Depth is limited for directories only: a log of linked records may be long."""
    blocks = Blocks()
    head = None
    for number in range(5000):
        block = encode_dagcbor({"number": number, "previous": head})
        head = blocks.put_node(block, DAG_CBOR)
    assert head is not None
    report = verify_dag(blocks, head)
    assert (report.ok, report.blocks) == (True, 5000)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    entries: list[list[Any]] = [
        ["big", {"kind": "file", "size": 2_500_000, "seed": "big"}],
        ["small", {"kind": "file", "text": "small"}],
        ["link", {"kind": "symlink", "target": "small"}],
        ["directory", {"kind": "directory", "entries": [["inside", {"kind": "file", "text": "inside"}]]}],
        ["empty", {"kind": "directory", "entries": []}],
        [{"base64": "/w=="}, {"kind": "file", "text": "no text"}],
    ]
    build({"kind": "directory", "entries": entries}, tmp_path / "tree")
    return tmp_path / "tree"


def test_sound_content_verifies(tree: Path) -> None:
    blocks = CheckedBlocks()
    root = import_into(blocks, tree).link.cid
    seen: list[int] = []
    report = verify_dag(blocks, root, progress=seen.append)
    assert report.problems == []
    assert report.ok
    assert report.blocks == len(blocks.by_multihash) == len(seen)
    assert report.size_bytes == sum(map(len, blocks.by_multihash.values())) == sum(seen)
    assert compare_with_disk(blocks, root, tree).problems == []


def test_each_damaged_block_is_named_with_its_path(tree: Path) -> None:
    blocks = CheckedBlocks()
    root = import_into(blocks, tree).link.cid
    small, inside = resolve(blocks, root, "small"), resolve(blocks, root, "directory/inside")
    big_leaf = read_unixfs(blocks, resolve(blocks, root, "big")).links[1].cid
    blocks.by_multihash[small.multihash] = b"smalL"
    del blocks.by_multihash[inside.multihash]
    blocks.by_multihash[big_leaf.multihash] = b"x"
    report = verify_dag(blocks, root)
    assert not report.ok
    assert {(problem.cid, problem.path) for problem in report.problems} == {
        (small, "small"),
        (inside, "directory/inside"),
        (big_leaf, "big"),
    }


def test_a_damaged_root_is_named() -> None:
    blocks = CheckedBlocks()
    root = leaf(blocks)
    blocks.by_multihash[root.multihash] = b"x"
    [problem] = verify_dag(blocks, root).problems
    assert (problem.cid, problem.path) == (root, "")
    with pytest.raises(IntegrityError):
        blocks.get(root)


def change_big(tree: Path) -> None:
    with (tree / "big").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"!")


CHANGES: dict[str, Any] = {
    "big": change_big,
    "small": lambda tree: (tree / "small").write_text("smaLL"),
    "directory/inside": lambda tree: (tree / "directory" / "inside").unlink(),
    "directory/more": lambda tree: (tree / "directory" / "more").write_text("x"),
    ".hidden": lambda tree: (tree / ".hidden").write_text("x"),
    "link": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("other")),
    "empty": lambda tree: (tree / "empty").rmdir(),
    "empty/x": lambda tree: (tree / "empty" / "x").mkdir(),
    "\udcff": lambda tree: os.unlink(os.path.join(os.fsencode(tree), b"\xff")),
}


@pytest.mark.parametrize("path", list(CHANGES), ids=ascii)
def test_each_difference_from_disk_is_named(path: str, tree: Path) -> None:
    blocks = CheckedBlocks()
    root = import_into(blocks, tree).link.cid
    CHANGES[path](tree)
    assert [problem.path for problem in compare_with_disk(blocks, root, tree).problems] == [path]


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("small", lambda path: path.write_text("smal"), "differs"),
        ("small", lambda path: path.write_text("small and more"), "longer"),
        ("small", lambda path: path.write_text(""), "differs"),
        ("small", lambda path: (path.unlink(), path.mkdir()), "is not a file"),
        ("small", lambda path: (path.unlink(), path.symlink_to("link")), "is not a file"),
        ("small", make_fifo, "neither a file"),
        ("link", lambda path: (path.unlink(), path.write_text("small")), "not the same symlink"),
        (
            "directory",
            lambda path: ((path / "inside").unlink(), path.rmdir(), path.write_text("x")),
            "is not a directory",
        ),
        ("directory", lambda path: (path.rename(path.with_name("f2")), path.symlink_to("f2")), "is not a directory"),
    ],
)
def test_how_something_differs(path: str, change: Any, words: str, tree: Path) -> None:
    blocks = CheckedBlocks()
    root = import_into(blocks, tree).link.cid
    change(tree / path)
    reasons = {problem.path: problem.reason for problem in compare_with_disk(blocks, root, tree).problems}
    assert words in reasons[path]


def test_content_in_other_chunks_is_compared_too(tree: Path) -> None:
    from mlflow_ipfs.content.files.chunker import FixedSizeChunker
    from mlflow_ipfs.content.files.importer import ImportOptions
    from mlflow_ipfs.content.profiles import UNIXFS_V0_2015

    blocks = CheckedBlocks()
    options = ImportOptions(profile=UNIXFS_V0_2015, chunker=FixedSizeChunker(99_999))
    assert compare_with_disk(blocks, import_into(blocks, tree, options).link.cid, tree).problems == []


def test_hostile_names_are_not_looked_for_on_disk(tmp_path: Path) -> None:
    blocks = Blocks()
    (tmp_path / "outside").write_bytes(b"data")
    (tmp_path / "in").mkdir()
    root = directory_of(blocks, (b"../outside", leaf(blocks)))
    [problem] = compare_with_disk(blocks, root, tmp_path / "in").problems
    assert "not a valid name" in problem.reason


def test_comparing_with_nothing(tmp_path: Path) -> None:
    blocks = Blocks()
    [problem] = compare_with_disk(blocks, leaf(blocks), tmp_path / "missing").problems
    assert "missing" in problem.reason


def test_dag_pb_without_unixfs_is_sound_and_data_that_is_none_is_not() -> None:
    blocks = Blocks()
    plain = blocks.put_node(encode_node([Link(leaf(blocks), b"x", 4)], None), DAG_PB)
    assert verify_dag(blocks, plain).ok
    odd = blocks.put_node(encode_node([Link(leaf(blocks), b"x", 4)], b"no unixfs"), DAG_PB)
    assert not verify_dag(blocks, odd).ok


def test_an_unknown_codec_cannot_be_called_whole() -> None:
    blocks = Blocks()
    unknown = blocks.put_node(b"who knows", 0x300000)
    with pytest.raises(InvalidDataError, match="codec"):
        find_missing(blocks, unknown)
    assert not verify_dag(blocks, unknown).ok
