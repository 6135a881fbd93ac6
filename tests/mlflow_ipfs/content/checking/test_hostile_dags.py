"""Every walk over hostile DAGs ends soon: with the right answer where each block counts once, else with our error."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.car.format import encode_car_block, encode_car_header
from mlflow_ipfs.content.checking.compare import compare_with_disk
from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.codecs.hamt import HamtBuilder
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData
from mlflow_ipfs.content.dag import iterate_directory, read_unixfs, resolve, walk_blocks
from mlflow_ipfs.content.files import exporter, file_reader, tree_size
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.file_reader import UnixFSFile, part_bounds
from mlflow_ipfs.content.files.tree_size import measure_tree
from mlflow_ipfs.content.listing import list_entries
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.storage.local.repair.rebuild import objects as rebuild_objects
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidDataError, MlflowIpfsError, StoreFullError
from support.blocks import Blocks
from support.hostile_dags import (
    deep_file,
    put_directory,
    put_file,
    put_leaf,
    put_shard,
    shared_directories,
    shared_parts,
    shared_shards,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_SECONDS = 60  # on a machine that does much else; each takes a few seconds
WHOLE = 60  # levels of doubling that nothing could ever walk

BOMBS: dict[str, Callable[[Blocks], CID]] = {
    "empty shards": lambda blocks: shared_shards(blocks, 20),
    "shards of one name": lambda blocks: shared_shards(blocks, 20, name=b"x"),
    "wide shards": lambda blocks: shared_shards(blocks, 7, 256),
    "directories": lambda blocks: shared_directories(blocks, WHOLE),
    "wide directories": lambda blocks: shared_directories(blocks, 12, 1000),
    "parts": lambda blocks: shared_parts(blocks, WHOLE),
    "parts of 0 bytes": lambda blocks: shared_parts(blocks, WHOLE, leaf=b""),
    "a file of many levels": lambda blocks: deep_file(blocks, 3000),
    "all of them": lambda blocks: put_directory(
        blocks,
        (b"a", shared_directories(blocks, WHOLE)),
        (b"b", shared_parts(blocks, WHOLE)),
        (b"c", shared_shards(blocks, 20)),
    ),
}
SLOW = dict.fromkeys(("wide directories", "parts", "a file of many levels"), pytest.mark.slow)


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < LIMIT_SECONDS


def car_of(blocks: Blocks, root: CID) -> io.BytesIO:
    """The blocks as a CAR. They are told apart by their bytes alone: raw and dag-pb."""
    out = [encode_car_header([root])]
    for multihash, data in blocks.by_multihash.items():
        out.append(encode_car_block(CID(1, root.codec, multihash), data))
    return io.BytesIO(b"".join(out))


@pytest.mark.parametrize("kind", ["memory", "local"])
@pytest.mark.parametrize("bomb", [pytest.param(name, marks=SLOW.get(name, ())) for name in BOMBS])
def test_every_walk_ends(bomb: str, kind: str, tmp_path: Path) -> None:
    blocks = Blocks()
    root = BOMBS[bomb](blocks)
    storage = MemoryStorage() if kind == "memory" else open_local_storage(tmp_path / "store")
    (tmp_path / "disk").mkdir()
    with ContentStore(storage) as store:
        [found] = store.import_car(car_of(blocks, root))
        assert found == root, "it is complete and pinned"
        report = store.verify(root)
        assert not report.ok or bomb == "parts of 0 bytes"
        assert report.blocks == sum(1 for _ in walk_blocks(blocks, root))
        store.pin(root, "again")
        store.export_car(root, io.BytesIO())
        store.collect_garbage()
        store.measure_usage([[root]])
        store.find_affected([root])
        store.scrub()
        for walk in (
            lambda: store.ls(root),
            lambda: store.stat(root, "0/0/0"),
            lambda: store.local_path(root),
            lambda: store.verify(root, against=tmp_path / "disk"),
            lambda: store.open(root).read(1 << 16),
        ):
            try:
                walk()
            except MlflowIpfsError:
                continue
        if bomb == "parts of 0 bytes":
            assert store.view(root, dst=tmp_path / "out").read_bytes() == b""
        else:
            with pytest.raises((InvalidDataError, StoreFullError)):
                store.view(root, dst=tmp_path / "out")


def test_a_shard_that_is_linked_twice_is_named() -> None:
    blocks = Blocks()
    child = put_shard(blocks, {0: (b"x", put_leaf(blocks))})
    root = put_shard(blocks, {1: (b"", child), 2: (b"", child)})
    with pytest.raises(InvalidDataError, match=f"{root} links to its shard {child} twice"):
        list(iterate_directory(blocks, read_unixfs(blocks, root)))
    assert child in {problem.cid for problem in verify_dag(blocks, root).problems}


def test_snapshots_that_share_directories_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_MEASURED_REPEATS", 10)
    blocks = Blocks()
    tree = put_directory(blocks, *((b"%d" % number, put_leaf(blocks)) for number in range(20)))
    root = put_directory(blocks, *((b"s%d" % number, tree) for number in range(30)))
    size = measure_tree(blocks, read_unixfs(blocks, root))
    assert size == (30 + 30 * 20, 30 + 20)
    assert verify_dag(blocks, root).ok
    Exporter(blocks).export(root, tmp_path / "out")
    assert sum(1 for _ in (tmp_path / "out").rglob("*")) == size.written


@pytest.mark.parametrize("repeated", [580, 579])
def test_the_limit_of_repeated_entries(repeated: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_MEASURED_REPEATS", 10)
    monkeypatch.setattr(tree_size, "MAX_REPEATED_ENTRIES", repeated)
    blocks = Blocks()
    tree = put_directory(blocks, *((b"%d" % number, put_leaf(blocks)) for number in range(20)))
    root = put_directory(blocks, *((b"s%d" % number, tree) for number in range(30)))
    assert verify_dag(blocks, root).ok == (repeated == 580)
    if repeated == 579:
        with pytest.raises(InvalidDataError, match="would be 630 files and directories"):
            Exporter(blocks).export(root, tmp_path / "out")
    else:
        Exporter(blocks).export(root, tmp_path / "out")


def test_a_bomb_is_refused_before_much_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_MEASURED_REPEATS", 100)
    blocks = Blocks()
    root = shared_directories(blocks, 100)
    with pytest.raises(InvalidDataError, match=r"more than 10\*\*"):
        Exporter(blocks).export(root, tmp_path / "out")
    assert sum(1 for _ in (tmp_path / "out").rglob("*")) < 500


def test_many_small_parts_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "_FREE_PARTS", 1000)
    blocks = Blocks()
    few, many = shared_parts(blocks, 9), shared_parts(blocks, 11)
    large = shared_parts(blocks, 11, leaf=bytes(600))  # as of a disk image full of zeros
    for root in (few, large):
        assert verify_dag(blocks, root).ok
        Exporter(blocks).export(root, tmp_path / str(root))
    with pytest.raises(InvalidDataError, match="2048 bytes has more than 1008 parts"):
        Exporter(blocks).export(many, tmp_path / "many")
    [problem] = verify_dag(blocks, put_directory(blocks, (b"a", many), (b"b", many))).problems
    assert (problem.cid, problem.path) == (many, "a")
    assert verify_dag(blocks, put_file(blocks, (many, 2048), (large, 600 << 11))).ok, "on average they are large"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (UnixFSData(NodeType.FILE, block_sizes=(1 << 63,)), "states a size of .* bytes, but the limit is"),
        (UnixFSData(NodeType.FILE, block_sizes=((1 << 64) - 1,) * 3), "states a size of .* bytes, but the limit is"),
        (UnixFSData(NodeType.FILE, block_sizes=(0,) * 1025), "1025 parts of 0 bytes"),
    ],
)
def test_sizes_that_no_file_has(data: UnixFSData, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        part_bounds(CID.of(b"x"), data)


@pytest.mark.slow
def test_the_largest_file_can_be_sought_in() -> None:
    blocks = Blocks()
    root, size = put_leaf(blocks, b"x"), 1
    for _ in range(3):
        root, size = put_file(blocks, *([(root, size)] * (1 << 15))), size << 15
    for _ in range(17):
        root, size = put_file(blocks, (root, size), (root, size)), size * 2
    file = io.BufferedReader(UnixFSFile(blocks, root))
    before = blocks.reads
    for position in (0, 1 << 61, size - 1):
        file.seek(position)
        assert file.read(1) == b"x"
    assert blocks.reads - before < 3 * 25, "a node for each level"


def test_a_large_node_under_many_names_is_read_once() -> None:
    blocks = Blocks()
    file = shared_parts(blocks, 2)
    root = put_directory(blocks, *((b"%d" % number, file) for number in range(1000)))
    assert len(list_entries(blocks, read_unixfs(blocks, root))) == 1000
    assert blocks.reads == 2


def test_comparing_looks_only_where_the_disk_has_something(tmp_path: Path) -> None:
    blocks = Blocks()
    root = shared_directories(blocks, WHOLE)
    (tmp_path / "0" / "0").mkdir(parents=True)
    assert len(compare_with_disk(blocks, root, tmp_path).problems) == 4
    assert resolve(blocks, root, "/".join("0" * WHOLE)) == put_directory(blocks)


def test_paths_of_endless_length_take_no_memory() -> None:
    """Each of 2,000 levels has a name of 1,000,000 bytes, and a second entry that waits while the first is visited."""
    blocks = Blocks()
    leaf = put_leaf(blocks)
    root = put_directory(blocks)
    for _ in range(100):
        root = put_directory(blocks, (b"a" * 1_000_000, root), (b"b", leaf), (b"c", CID.of(b"missing")))
    [problem] = verify_dag(blocks, root).problems
    assert problem.path.endswith("/c")
    assert len(problem.path) < 5000


class TestObjects:
    """Files as the local store keeps them whole."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContentStore]:
        monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 1000)
        with ContentStore(open_local_storage(tmp_path / "store")) as store:
            yield store

    def add(self, store: ContentStore, blocks: Blocks, root: CID) -> None:
        store.import_car(car_of(blocks, root))

    @pytest.mark.parametrize("bomb", ["zero", "lie", "tiny", "long leaf"])
    def test_a_bomb_is_not_put_together(
        self, bomb: str, store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_reader, "_FREE_PARTS", 1000)
        blocks = Blocks()
        large = put_leaf(blocks, bytes(5000))
        roots = {
            "zero": lambda: put_file(blocks, (shared_parts(blocks, WHOLE, leaf=b""), 0), (large, 5000)),
            "lie": lambda: put_file(blocks, (shared_parts(blocks, WHOLE), 2000), (large, 5000)),
            "tiny": lambda: shared_parts(blocks, 20),
            "long leaf": lambda: put_file(blocks, *[(put_leaf(blocks, bytes(100_000)), 1)] * 2000),
        }
        root = roots[bomb]()
        self.add(store, blocks, root)
        assert store.local_path(root) is None
        assert not list((tmp_path / "store" / "tmp").rglob("*.draft"))
        usage = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file())
        assert usage < 10_000_000

    def test_a_sound_file_is(self, store: ContentStore) -> None:
        blocks = Blocks()
        root = put_file(blocks, (put_leaf(blocks, bytes(5000)), 5000), (put_leaf(blocks, b"1" * 5000), 5000))
        self.add(store, blocks, root)
        path = store.local_path(root)
        assert path is not None
        assert path.read_bytes() == bytes(5000) + b"1" * 5000

    def test_a_rebuild_gives_up(self) -> None:
        blocks = Blocks()
        root = shared_parts(blocks, WHOLE, leaf=b"")
        with pytest.raises(rebuild_objects._NodesMissingError):
            for _ in rebuild_objects.iterate_leaves(blocks.by_multihash.get, root.multihash, max_visits=1000):
                pass


def test_links_from_other_data_do_not_say_what_a_block_is() -> None:
    """A list of all blocks of a DAG, as IPFS Cluster makes it, links to inner shards and parts of files."""
    blocks = Blocks()
    leaf = put_leaf(blocks)
    names = [b"name %d" % number for number in range(300)]
    builder = HamtBuilder(lambda block: blocks.put_node(block, DAG_PB), 256)
    root = builder.build([Link(leaf, name, 4) for name in names]).cid
    nodes = [CID(1, DAG_PB, multihash) for multihash in blocks.by_multihash if multihash != leaf.multihash]
    for order in (nodes, nodes[::-1]):
        index = blocks.put_node(encode_dagcbor({"blocks": [*order, leaf]}), DAG_CBOR)
        report = verify_dag(blocks, index)
        assert (report.problems, report.blocks) == ([], len(nodes) + 2)
        both = blocks.put_node(encode_dagcbor([*order, put_directory(blocks, (b"d", root))]), DAG_CBOR)
        assert verify_dag(blocks, both).problems == []
    wrong = put_shard(blocks, {0: (names[0], leaf)})
    listed = blocks.put_node(encode_dagcbor([wrong, put_directory(blocks, (b"d", wrong))]), DAG_CBOR)
    assert not verify_dag(blocks, listed).ok, "checked again where a directory names it"
