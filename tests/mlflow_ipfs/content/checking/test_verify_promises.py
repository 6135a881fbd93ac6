"""What verifies can be read: random DAGs, sound and mutated, verified and then listed, read and written to disk."""

from __future__ import annotations

import math
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link, decode_node, encode_node
from mlflow_ipfs.content.codecs.hamt import HamtBuilder
from mlflow_ipfs.content.codecs.murmur3 import murmur3_x64_64, murmur3_x64_64_many
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, decode_unixfs, encode_data, encode_symlink
from mlflow_ipfs.content.dag import find_link, read_unixfs
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.file_reader import UnixFSFile
from mlflow_ipfs.content.files.tree_size import measure_tree
from mlflow_ipfs.content.listing import list_entries
from mlflow_ipfs.errors import InvalidDataError, MlflowIpfsError, NotFoundError
from support.blocks import Blocks
from support.hostile_dags import deep_file, put_directory, put_file, put_leaf, put_shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

NAMES = [b"%d" % number for number in range(40)]
MAX_WRITTEN = 3000  # entries on disk: five directories of 40 entries that share each other have millions


def read_all(blocks: Blocks, root: CID, *, max_written: float = math.inf) -> None:
    """List every directory and find each of its names, read every file, and write all to disk if it is not too much."""
    if max_written == math.inf or count_written(blocks, root) <= max_written:
        write_all(blocks, root)
    stack, seen = [root], set()
    while stack:
        cid = stack.pop()
        if cid in seen:
            continue
        seen.add(cid)
        node = read_unixfs(blocks, cid)
        if node.data.is_directory:
            for entry in list_entries(blocks, node):
                assert find_link(blocks, node, entry.name).cid == entry.cid
                stack.append(entry.cid)
        elif node.data.is_file:
            read = b"".join(map(bytes, UnixFSFile(blocks, cid).pieces()))
            assert len(read) == node.size_bytes


def count_written(blocks: Blocks, root: CID) -> int:
    node = read_unixfs(blocks, root)
    return measure_tree(blocks, node).written if node.data.is_directory else 1


def write_all(blocks: Blocks, root: CID) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        Exporter(blocks, allow_outside_links=True).export(root, directory / "out")
    finally:
        subprocess.run(["rm", "-rf", directory], check=True, timeout=300)  # too deep for Python


def make_node(draw: Draw, blocks: Blocks, made: list[CID]) -> CID:
    kind = draw(st.sampled_from(["leaf", "file", "directory", "hamt", "hamt", "symlink", "record"]))
    some = draw(st.lists(st.sampled_from(made), max_size=5)) if made else []
    if kind == "file":
        return make_file(blocks, some)
    if kind == "directory":
        return put_directory(blocks, *zip(NAMES, some, strict=False))
    if kind == "hamt":
        count, fanout = draw(st.integers(1, 40)), draw(st.sampled_from([8, 16, 256]))
        builder = HamtBuilder(lambda block: blocks.put_node(block, DAG_PB), fanout)
        targets = some or [put_leaf(blocks)]
        return builder.build([Link(targets[place % len(targets)], NAMES[place], 1) for place in range(count)]).cid
    if kind == "symlink":
        return blocks.put_node(encode_symlink(draw(st.sampled_from([b"a", b"../b", b"/c"]))), DAG_PB)
    if kind == "record" and draw(st.integers(0, 9)) == 0:
        return blocks.put_node(encode_dagcbor({"below": some}), DAG_CBOR)
    return put_leaf(blocks, draw(st.binary(max_size=8)))


def make_file(blocks: Blocks, parts: list[CID]) -> CID:
    """Store a file of those parts that are files."""
    readable = [cid for cid in parts if cid.codec == RAW or (cid.codec == DAG_PB and is_node(blocks, cid.multihash))]
    nodes = [read_unixfs(blocks, cid) for cid in readable]
    return put_file(blocks, *((node.cid, node.size_bytes) for node in nodes if node.data.is_file))


def mutate(draw: Draw, blocks: Blocks, cid: CID, made: list[CID]) -> CID:  # noqa: C901 - one case a line or two
    """The block with one thing changed."""
    if cid.codec != DAG_PB or not is_node(blocks, cid.multihash):  # an earlier change may have made it undecodable
        return cid
    node = decode_node(blocks.get(cid))
    links, data = list(node.links), decode_unixfs(node)
    place = draw(st.integers(0, max(0, len(links) - 1)))
    change = draw(
        st.sampled_from(["target", "name", "swap", "drop", "twice", "size", "type", "fanout", "bits", "data"])
    )
    if change == "target" and links:
        links[place] = replace(links[place], cid=draw(st.sampled_from(made)))
    elif change == "name" and links:
        prefix = (links[place].name or b"")[: 2 * (data.type is NodeType.HAMT_SHARD)]
        links[place] = replace(links[place], name=prefix + draw(st.sampled_from([*NAMES, b"", b"..", b"a/b"])))
    elif change == "swap" and links:
        other = draw(st.integers(0, len(links) - 1))
        name = links[other].name
        links[other], links[place] = replace(links[other], name=links[place].name), replace(links[place], name=name)
    elif change == "drop" and links:
        del links[place]
    elif change == "twice" and links:
        links.insert(place, links[place])
    elif change == "size" and data.block_sizes:
        sizes = list(data.block_sizes)
        sizes[place % len(sizes)] = draw(st.integers(0, 10))
        data = replace(data, block_sizes=tuple(sizes), size_bytes=sum(sizes))
    elif change == "type":
        data = replace(data, type=draw(st.sampled_from(NodeType)))
    elif change == "fanout":
        data = replace(data, fanout=draw(st.sampled_from([8, 16, 256, 7])))
    elif change == "bits" and data.data:
        data = replace(data, data=bytes((data.data[0] << 1 & 0xFF,)) + data.data[1:])
    elif change == "data":
        data = replace(data, data=draw(st.sampled_from([None, b"", b"x", b"\0"])))
    return blocks.put_node(encode_node(links, encode_data(data)), DAG_PB)


@given(st.data())
def test_what_verifies_can_be_read(data: st.DataObject) -> None:
    draw, blocks = data.draw, Blocks()
    made: list[CID] = []
    for _ in range(draw(st.integers(1, 8))):
        made.append(make_node(draw, blocks, made))
        inner = [CID(1, DAG_PB, multihash) for multihash in blocks.by_multihash if is_node(blocks, multihash)]
        if draw(st.integers(0, 2)) == 0 and made:
            made.append(mutate(draw, blocks, draw(st.sampled_from(made + inner)), made + inner))
    root = made[-1]
    if root.codec != DAG_CBOR:
        judge(blocks, root)


def is_node(blocks: Blocks, multihash: bytes) -> bool:
    try:
        decode_unixfs(decode_node(blocks.by_multihash[multihash]))
    except InvalidDataError:
        return False
    return True


def judge(blocks: Blocks, root: CID) -> None:
    if verify_dag(blocks, root).ok:
        event("verifies")
        read_all(blocks, root, max_written=MAX_WRITTEN)
    else:
        event("does not verify")


@pytest.mark.slow
@settings(max_examples=50)  # deep trees take long to write and to remove
@given(st.data())
def test_sound_content_verifies(data: st.DataObject) -> None:
    blocks = Blocks()
    made: list[CID] = []
    for _ in range(data.draw(st.integers(1, 8))):
        cid = make_node(data.draw, blocks, made)
        if cid.codec != DAG_CBOR:
            made.append(cid)
    for cid in made:
        assert verify_dag(blocks, cid).problems == []
        read_all(blocks, cid, max_written=MAX_WRITTEN)


def misplaced(blocks: Blocks) -> CID:
    slot = murmur3_x64_64(b"x") >> 56
    return put_shard(blocks, {(slot + 1) % 256: (b"x", put_leaf(blocks))})


def child_of(blocks: Blocks, child: CID) -> CID:
    return put_shard(blocks, {murmur3_x64_64(b"x") >> 56: (b"", child)})


def inner(blocks: Blocks, fanout: int = 256) -> CID:
    """A sound child shard that holds x, one level below the root."""
    bits = fanout.bit_length() - 1
    return put_shard(blocks, {murmur3_x64_64(b"x") >> (64 - 2 * bits) & (fanout - 1): (b"x", put_leaf(blocks))}, fanout)


def metadata(blocks: Blocks) -> CID:
    return blocks.put_node(encode_node([Link(put_leaf(blocks))], encode_data(UnixFSData(NodeType.METADATA))), DAG_PB)


def deep_directories(blocks: Blocks, levels: int) -> CID:
    root = shared = put_directory(blocks)
    for level in range(levels):
        root = put_directory(blocks, (b"d", root))
        if level == 1000:
            shared = root
    return put_directory(blocks, (b"a", shared), (b"b", root))  # shared is met near the top first


REFUSED: dict[str, Callable[[Blocks], CID]] = {
    "an entry in the wrong slot": misplaced,
    "a name twice": lambda blocks: put_directory(blocks, (b"a", put_leaf(blocks)), (b"a", put_leaf(blocks))),
    "a raw child shard": lambda blocks: child_of(blocks, put_leaf(blocks)),
    "a directory as child shard": lambda blocks: child_of(blocks, put_directory(blocks)),
    "a child shard of another fanout": lambda blocks: child_of(blocks, inner(blocks, 16)),
    "a child that is dag-cbor": lambda blocks: put_directory(
        blocks, (b"a", blocks.put_node(encode_dagcbor({}), DAG_CBOR))
    ),
    "a child without UnixFS": lambda blocks: put_directory(blocks, (b"a", blocks.put_node(b"", DAG_PB))),
    "metadata": lambda blocks: put_directory(blocks, (b"a", metadata(blocks))),
    "a symlink to nothing": lambda blocks: put_directory(blocks, (b"a", blocks.put_node(encode_symlink(b""), DAG_PB))),
    "a file of 129 levels": lambda blocks: put_directory(blocks, (b"a", deep_file(blocks, 129))),
    "directories of 2,050 levels": lambda blocks: deep_directories(blocks, 2048),
    "a directory as a part of a file": lambda blocks: put_file(blocks, (put_directory(blocks), 0)),
}
READ: dict[str, Callable[[Blocks], CID]] = {
    "a shard of one name": lambda blocks: child_of(blocks, inner(blocks)),
    "a file of 128 levels": lambda blocks: put_directory(blocks, (b"a", deep_file(blocks, 128))),
    "a shared HAMT": lambda blocks: put_directory(
        blocks, (b"a", child_of(blocks, inner(blocks))), (b"b", child_of(blocks, inner(blocks)))
    ),
    "the same part twice": lambda blocks: put_file(blocks, (put_leaf(blocks), 4), (put_leaf(blocks), 4)),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_verify_names_what_readers_refuse(what: str) -> None:
    blocks = Blocks()
    root = REFUSED[what](blocks)
    report = verify_dag(blocks, root)
    assert len(report.problems) == 1
    if "part" not in what:  # of 0 bytes: readers pass over it
        with pytest.raises((MlflowIpfsError, OSError)):
            read_all(blocks, root)


@pytest.mark.parametrize("what", list(READ))
def test_verify_accepts_what_readers_read(what: str) -> None:
    blocks = Blocks()
    root = READ[what](blocks)
    assert verify_dag(blocks, root).problems == []
    read_all(blocks, root)


def test_what_is_below_a_misplaced_name_is_verified_too() -> None:
    blocks = Blocks()
    root = misplaced(blocks)
    blocks.by_multihash.pop(CID.of(b"data").multihash)
    assert [problem.path for problem in verify_dag(blocks, root).problems] == ["", "x"]


@given(st.lists(st.binary(max_size=70), max_size=40))
def test_many_names_are_hashed_as_one(names: list[bytes]) -> None:
    assert murmur3_x64_64_many(names) == [murmur3_x64_64(name) for name in names]


def test_a_misplaced_name_is_listed_and_written_as_by_kubo(tmp_path: Path) -> None:
    """`ipfs ls` and `ipfs get` show it, and `ipfs cat` of its path says that there is no such link."""
    blocks = Blocks()
    root = misplaced(blocks)
    assert [entry.name for entry in list_entries(blocks, read_unixfs(blocks, root))] == ["x"]
    Exporter(blocks).export(root, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == b"data"
    with pytest.raises(NotFoundError):
        find_link(blocks, read_unixfs(blocks, root), "x")
