"""CAR files: written whole or continued, whatever ended the export before."""

from __future__ import annotations

import errno
import functools
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.car.exporting import export_car
from mlflow_ipfs.content.car.format import encode_car_header
from mlflow_ipfs.content.car.resuming import ExportedCar, draft_of, export_car_file
from mlflow_ipfs.content.cid import CID, DAG_CBOR, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import ConflictError, InvalidDataError, NotFoundError, StoreFullError
from support.blocks import Blocks
from support.faulty_disk import FaultyDisk, KillingDisk
from support.mounted import mounted_tmpfs
from support.processes import fork_child

if TYPE_CHECKING:
    from support.kubo import KuboRepository

IDENTITY_CID = CID(1, RAW, b"\0\x02hi")


@functools.cache
def sample() -> tuple[CID, bytes, Blocks]:
    """A DAG with a leaf that comes twice and an identity CID, its CAR, and its blocks."""
    blocks = Blocks()
    leaves = [blocks.put_node(bytes((number,)) * 90, RAW) for number in range(6)]
    inner = blocks.put_node(encode_dagcbor([*leaves[:3], IDENTITY_CID, leaves[0]]), DAG_CBOR)
    root = blocks.put_node(encode_dagcbor([inner, *leaves[::-1]]), DAG_CBOR)
    stream = io.BytesIO()
    export_car(blocks, root, stream)
    return root, stream.getvalue(), blocks


class CountedBlocks(BlockReader):
    """Says which blocks were read."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.read: list[CID] = []

    def get(self, cid: CID) -> bytes:
        self.read.append(cid)
        return self._blocks.get(cid)

    def has(self, cid: CID) -> bool:
        return self._blocks.has(cid)


class QuickDisk(Disk):
    """Syncs nothing: no test here loses power."""

    def sync(self, descriptor: int) -> None:
        pass


@pytest.mark.slow
def test_a_draft_cut_at_any_byte_is_continued_with_the_same_bytes(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    reads = []
    for end in range(len(car) + 1):
        draft_of(path).write_bytes(car[:end])
        reader, seen = CountedBlocks(blocks), list[int]()
        done = export_car_file(reader, root, path, overwrite=True, progress=seen.append, disk=QuickDisk())
        assert path.read_bytes() == car
        assert not draft_of(path).exists()
        assert (done.size_bytes, done.resumed_bytes + done.dropped_bytes) == (len(car), end)
        assert done.dropped_bytes < 400, "less than the largest frame"
        assert sum(seen) == sum(map(len, blocks.by_multihash.values())) + len(b"hi")
        reads.append(len(reader.read))
    assert (reads[0], reads[-1]) == (8, 0)
    assert reads == sorted(reads, reverse=True), "what is there is not read from the store again"


@given(position=st.integers(0, 1 << 20), flip=st.integers(1, 255), tail=st.binary(max_size=60))
def test_a_draft_with_a_changed_byte_or_more_at_its_end_is_mended(position: int, flip: int, tail: bytes) -> None:
    root, car, blocks = sample()
    damaged = bytearray(car)
    damaged[position % len(car)] ^= flip
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.car")
        draft_of(path).write_bytes(bytes(damaged) + tail)
        done = export_car_file(blocks, root, path, disk=QuickDisk())
        assert path.read_bytes() == car
        assert done.resumed_bytes <= position % len(car)
        assert done.dropped_bytes == len(car) + len(tail) - done.resumed_bytes


@pytest.mark.parametrize(
    "make",
    [
        lambda root, car: encode_car_header([IDENTITY_CID]) + car[len(encode_car_header([root])) :],
        lambda _root, _car: b"no CAR at all, but a letter" * 100,
        lambda _root, car: car[1:],
    ],
)
def test_a_draft_of_something_else_is_begun_anew(make: Any, tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    draft_of(path).write_bytes(make(root, car))
    size = draft_of(path).stat().st_size
    assert export_car_file(blocks, root, path) == ExportedCar(len(car), 0, size)
    assert path.read_bytes() == car


def test_blocks_in_another_order_are_not_taken_over(tmp_path: Path) -> None:
    root, car, blocks = sample()
    header = len(encode_car_header([root]))
    frames = car[header:]
    path = tmp_path / "x.car"
    draft_of(path).write_bytes(car[:header] + frames[-128:] + frames)
    export_car_file(blocks, root, path)
    assert path.read_bytes() == car


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    path.write_text("mine")
    with pytest.raises(ConflictError, match="exists"):
        export_car_file(blocks, root, path)
    assert path.read_text() == "mine"
    export_car_file(blocks, root, path, overwrite=True)
    assert path.read_bytes() == car
    assert os.listdir(tmp_path) == ["x.car"]


@pytest.mark.parametrize("name", [".", "sub"])
def test_a_directory_is_no_place_for_a_car(name: str, tmp_path: Path) -> None:
    root, _, blocks = sample()
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConflictError, match="is a directory"):
        export_car_file(blocks, root, Path(name), overwrite=True)
    assert os.listdir(tmp_path) == ["sub"]


def test_names_that_are_no_text_are_file_names_too(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / os.fsdecode(b"\xff \n'")
    draft_of(path).write_bytes(car[:500])
    assert export_car_file(blocks, root, path).resumed_bytes > 100
    assert path.read_bytes() == car


def test_something_odd_in_the_draft_s_place_is_not_touched(tmp_path: Path) -> None:
    root, _, blocks = sample()
    path, other = tmp_path / "x.car", tmp_path / "other"
    other.write_text("mine")
    draft_of(path).symlink_to(other)
    with pytest.raises(ConflictError, match="remove it"):
        export_car_file(blocks, root, path)
    assert other.read_text() == "mine"
    draft_of(path).unlink()
    os.mkfifo(draft_of(path))
    with pytest.raises(ConflictError, match="remove it"):
        export_car_file(blocks, root, path)


def test_two_exports_to_one_file_do_not_meet(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    messages = []

    def export_at_the_same_time(_: int) -> None:
        with pytest.raises(ConflictError, match="another export is writing") as caught:
            export_car_file(blocks, root, path)
        messages.append(caught.value)

    export_car_file(blocks, root, path, progress=export_at_the_same_time)
    assert len(messages) == 9
    assert path.read_bytes() == car
    assert os.listdir(tmp_path) == ["x.car"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_leaves_a_draft_that_is_continued(number: int, tmp_path: Path) -> None:
    root, car, blocks = sample()
    resumed = []
    for passing in range(100):
        path = tmp_path / f"{passing}.car"
        disk = FaultyDisk(number)
        disk.passing = passing
        failure = None
        try:
            export_car_file(blocks, root, path, disk=disk)
        except OSError as error:
            failure = error
        if failure is not None:
            assert not path.exists()
            assert isinstance(failure, StoreFullError) is (number == errno.ENOSPC)
            assert number == errno.EIO or str(path) in str(failure)
            assert draft_of(path).exists() is (passing > 1)
            resumed.append(export_car_file(blocks, root, path).resumed_bytes)
        assert path.read_bytes() == car
        if disk.failed is None or disk.failed == "sync_directory":
            break
    assert passing > 10
    assert resumed == sorted(resumed)
    assert resumed[-1] == len(car)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        (tmp_path / "f").write_bytes(os.urandom(5 << 20))
        cid = store.add(tmp_path / "f").cid
        with mounted_tmpfs(tmp_path / "disk", size_bytes=6 << 20) as disk:
            (disk.directory / "filler").write_bytes(bytes(3 << 20))
            path = disk.directory / "x.car"
            with pytest.raises(StoreFullError, match=r"x.car' is full .* keeps what was written"):
                store.export_car_file(cid, path)
            (disk.directory / "filler").unlink()
            done = store.export_car_file(cid, path)
            assert done.resumed_bytes > 2 << 20
            with path.open("rb") as file, ContentStore(MemoryStorage()) as other:
                assert other.import_car(file) == [cid]


def test_a_missing_block_leaves_a_draft_only_if_that_is_worth_something(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    some = Blocks()
    with pytest.raises(NotFoundError):
        export_car_file(some, root, path)
    assert os.listdir(tmp_path) == []
    some.by_multihash |= dict(list(blocks.by_multihash.items())[2:])
    with pytest.raises(NotFoundError):
        export_car_file(some, root, path)
    assert os.listdir(tmp_path) == [draft_of(path).name]
    assert export_car_file(blocks, root, path).resumed_bytes > 100
    assert path.read_bytes() == car


def test_a_draft_outlives_an_interrupt_while_it_is_read(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    draft_of(path).write_bytes(car[:-1])

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_car_file(blocks, root, path, progress=interrupt)
    assert draft_of(path).read_bytes() == car[:-1]


def test_content_whose_links_cannot_be_known_is_not_exported(tmp_path: Path) -> None:
    blocks = Blocks()
    with pytest.raises(InvalidDataError, match="codec"):
        export_car_file(blocks, blocks.put_node(b"git object", 0x78), tmp_path / "x.car")


def test_an_identity_root_is_a_car_of_a_header(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    for _ in range(2):
        export_car_file(Blocks(), IDENTITY_CID, path, overwrite=True)
        assert path.read_bytes() == encode_car_header([IDENTITY_CID])
        draft_of(path).write_bytes(b"rubbish")


def test_exports_killed_at_every_step_end_in_the_same_file(tmp_path: Path) -> None:
    root, car, blocks = sample()
    path = tmp_path / "x.car"
    kills = 0
    while not path.exists():
        kill = KillingDisk(2)  # two more blocks, or the end
        _, status = os.waitpid(fork_child(lambda disk=kill: export_car_file(blocks, root, path, disk=disk)), 0)  # type: ignore[misc]
        kills += os.WIFSIGNALED(status)
        assert kills < 20
    assert kills >= 4
    assert path.read_bytes() == car


@pytest.mark.kubo
def test_kubo_reads_a_car_that_was_continued(kubo_v1: KuboRepository, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("one", "two"):
        (tmp_path / "tree" / name).write_bytes(os.urandom(2_500_000))
    path = tmp_path / "x.car"
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        cid = store.add(tmp_path / "tree").cid
        whole = io.BytesIO()
        store.export_car(cid, whole)
        draft_of(path).write_bytes(whole.getvalue()[:3_333_333])
        assert store.export_car_file(cid, path).resumed_bytes > 2_000_000
    assert f"Pinned root\t{cid}\tsuccess" in kubo_v1("dag", "import", path)
    assert kubo_v1.run("cat", f"{cid}/two") == (tmp_path / "tree" / "two").read_bytes()
    assert kubo_v1.run("dag", "export", "--progress=false", str(cid)) == path.read_bytes()
