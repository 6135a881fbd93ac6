"""Verifying on threads finds what verifying on one thread finds, in the same order, whatever is wrong."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.checking import verify
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.profiles import Profile


@dataclass
class SlowBlocks(BlockReader):
    """Blocks, some of them damaged or missing, that come after waits of different lengths."""

    by_multihash: dict[bytes, bytes] = field(default_factory=dict)
    waits: random.Random = field(default_factory=lambda: random.Random(1))
    threads: set[int] = field(default_factory=set)

    def get(self, cid: CID) -> bytes:
        self.threads.add(threading.get_ident())
        time.sleep(self.waits.choice([0, 0, 0.0005]))
        if cid.multihash not in self.by_multihash:
            msg = f"the block {cid} is not here"
            raise NotFoundError(msg)
        block = self.by_multihash[cid.multihash]
        cid.verify(block)
        return block

    def has(self, cid: CID) -> bool:
        return cid.multihash in self.by_multihash


KINDS = ("leaf", "file", "directory", "record", "no node")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[CID, dict[bytes, bytes]]:
    """A root and blocks: each node links to some made before it, often to the same ones; then some are damaged."""
    blocks: dict[bytes, bytes] = {}
    made: list[tuple[CID, int]] = []
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(KINDS)) if made else "leaf"
        below = draw(st.lists(st.sampled_from(made), max_size=6)) if made else []
        block, codec, size_bytes = make_block(kind, number, below, lie=draw(st.integers(0, 9)) == 0)
        cid = CID.of(block, codec, version=draw(st.sampled_from([0, 1])) if codec == DAG_PB else 1)
        blocks[cid.multihash] = block
        made.append((cid, size_bytes))
    for multihash in draw(st.lists(st.sampled_from(sorted(blocks)), max_size=3)):
        if draw(st.booleans()):
            blocks.pop(multihash, None)
        elif multihash in blocks:
            blocks[multihash] += b"!"
    return made[-1][0], blocks


def make_block(kind: str, number: int, below: list[tuple[CID, int]], *, lie: bool) -> tuple[bytes, int, int]:
    """A block, its codec, and how many bytes of a file it holds."""
    sizes = [size_bytes + lie for _, size_bytes in below]
    if kind == "leaf":
        data = b"%d" % number * (number % 4)
        return data, RAW, len(data)
    if kind == "file":
        links = [Link(cid, b"", size_bytes) for cid, size_bytes in below]
        data_field = encode_data(UnixFSData(NodeType.FILE, None, sum(sizes), block_sizes=tuple(sizes)))
        return encode_node(links, data_field), DAG_PB, sum(sizes)
    if kind == "directory":
        links = [Link(cid, b"%d" % place, size_bytes) for place, (cid, size_bytes) in enumerate(below)]
        return encode_node(links, encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB, 0
    if kind == "record":
        return encode_dagcbor({"number": number, "below": [cid for cid, _ in below]}), DAG_CBOR, 0
    return b"\xff%d" % number, DAG_PB, 0


def verify_with(
    patch: pytest.MonkeyPatch, reader: BlockReader, root: CID, min_threaded_bytes: int
) -> tuple[verify.VerifyReport, list[int]]:
    seen: list[int] = []
    patch.setattr(verify, "_MIN_THREADED_BYTES", min_threaded_bytes)
    return verify.verify_dag(reader, root, progress=seen.append), seen


@given(graph=graphs())
def test_any_graph_is_judged_as_on_one_thread(graph: tuple[CID, dict[bytes, bytes]]) -> None:
    root, blocks = graph
    with pytest.MonkeyPatch.context() as patch:
        alone = verify_with(patch, SlowBlocks(blocks), root, 1 << 30)
        together = verify_with(patch, SlowBlocks(blocks), root, 0)
    assert together == alone
    assert reading_threads() == []


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mlflow-ipfs-read")]


@pytest.mark.parametrize("profile", [UNIXFS_V1_2025, UNIXFS_V0_2015], ids=["v1", "v0"])
def test_damage_in_a_large_file_is_found_on_other_threads(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "file").write_bytes(random.Random(3).randbytes(3 << 20))
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        cid = store.add(tmp_path / "file", profile=profile, chunker=FixedSizeChunker(100_000)).cid
        path = store.local_path(cid)
        assert path is not None
        path.chmod(0o644)
        with path.open("r+b") as file:
            for number in (3, 17, 25):
                file.seek(number * 100_000 + 50_000)
                file.write(b"rot")
        seen: list[int] = []
        threads: set[int] = set()

        def note(count: int) -> None:
            seen.append(count)
            threads.add(threading.get_ident())

        report = store.verify(cid, progress=note)
        assert len(report.problems) == 3
        for number, problem in zip((3, 17, 25), report.problems, strict=True):
            assert f"damaged between bytes {number}00000 and" in problem.reason
        assert report.size_bytes == sum(seen)
        assert len(seen) == report.blocks
        assert threads == {threading.get_ident()}, "progress is called on the caller's thread"


def test_large_leaves_are_read_on_other_threads() -> None:
    blocks = SlowBlocks()
    leaves = [os.urandom(40_000) for _ in range(50)]
    for data in leaves:
        blocks.by_multihash[CID.of(data).multihash] = data
    node, _, size_bytes = make_block("file", 0, [(CID.of(data), len(data)) for data in leaves], lie=False)
    root = CID.of(node, DAG_PB)
    blocks.by_multihash[root.multihash] = node
    report = verify.verify_dag(blocks, root)
    assert (report.ok, report.blocks, report.size_bytes) == (True, 51, size_bytes + len(node))
    assert blocks.threads - {threading.get_ident()}


def test_a_leaf_that_is_linked_to_many_times_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(10 << 20))
    reads: Counter[CID] = Counter()
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        root = store.add(tmp_path / "zeros", chunker=FixedSizeChunker(100_000)).cid

        class CountingReader(BlockReader):
            def get(self, cid: CID) -> bytes:
                reads[cid] += 1
                return store.storage.blocks.get(cid)

            def has(self, cid: CID) -> bool:
                return store.storage.blocks.has(cid)

        assert verify.verify_dag(CountingReader(), root).blocks == len(reads) > 1
    assert set(reads.values()) == {1}


class EndlessBlocks(SlowBlocks):
    """Takes a moment for each leaf: all of them would take minutes."""

    def get(self, cid: CID) -> bytes:
        if cid.codec == RAW:
            time.sleep(0.1)
            return bytes(40_000)
        return super().get(cid)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C counts, even if these tests run as a shell's background job, which ignores it.

    No garbage is collected meanwhile: hypothesis has a callback there, and what is raised in such a one is dropped.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_it_at_once() -> None:
    blocks = EndlessBlocks()
    block, _, _ = make_block("file", 0, [(CID.of(b"%d" % number), 40_000) for number in range(10_000)], lie=False)
    root = CID.of(block, DAG_PB)
    blocks.by_multihash[root.multihash] = block
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify.verify_dag(blocks, root)
    timer.join()
    assert time.monotonic() - started < 60
    assert reading_threads() == []
