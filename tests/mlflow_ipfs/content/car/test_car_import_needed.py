"""What an import takes of a CAR, in whatever order its blocks come, and what it leaves to a gc while it waits."""

from __future__ import annotations

import functools
import gzip
import io
import os
import random
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from mlflow_ipfs.content.car import import_steps, undecided_blocks
from mlflow_ipfs.content.car.format import CarPart, CarReader
from mlflow_ipfs.content.car.importing import CarImport
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.names.pins import USER
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError, StoreFullError
from support.cars import write_car
from support.processes import wait_until
from support.storages import FullDisk, check_sound, delete_block, leftovers, multihashes, publish_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Block = tuple[CID, bytes]


def node(*children: CID) -> Block:
    block = encode_dagcbor(list(children))
    return CID.of(block, DAG_CBOR), block


@functools.cache
def needed_blocks() -> list[Block]:
    """A DAG of three levels, depth first: the root is the first block."""
    leaves = [(CID.of(data), data) for data in (bytes((number,)) * 1000 for number in range(12))]
    inner = [node(*(cid for cid, _ in leaves[start : start + 4])) for start in (0, 4, 8)]
    empty_directory = bytes.fromhex("0a020801")
    identity = CID(1, DAG_CBOR, b"\0" + bytes((len(inner[2][1]),)) + inner[2][1]) if len(inner[2][1]) < 128 else None
    assert identity is None, "the third node is an ordinary block"
    root = node(*(cid for cid, _ in inner), CID.of(empty_directory, DAG_PB))
    tree = [root]
    for number, found in enumerate(inner):
        tree += [found, *leaves[4 * number : 4 * number + 4]]
    return [*tree, (CID.of(empty_directory, DAG_PB), empty_directory)]


def junk(count: int, size: int = 1000) -> list[Block]:
    return [(CID.of(data), data) for data in (b"junk %d " % number * (size // 7) for number in range(count))]


def car_of(blocks: Sequence[Block], *roots: CID) -> bytes:
    stream = io.BytesIO()
    write_car(stream, roots or [needed_blocks()[0][0]], blocks)
    return stream.getvalue()


ROOT = needed_blocks()[0][0]
MULTIHASHES = {cid.multihash for cid, _ in needed_blocks()}
MIXED = random.Random(7).sample([*needed_blocks(), *junk(20)], len(needed_blocks()) + 20)
ORDERS = {
    "depth first": needed_blocks(),
    "leaves first": needed_blocks()[::-1],
    "junk before": [*junk(5), *needed_blocks()],
    "junk behind": [*needed_blocks(), *junk(5)],
    "junk all over": MIXED,
    "twice": [*needed_blocks()[::-1], *junk(3), *needed_blocks(), *junk(3)],
}


class Pipe(io.RawIOBase):
    """What can only be read on."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    storage = MemoryStorage() if request.param == "memory" else open_local_storage(tmp_path / "store")
    with ContentStore(storage) as store:
        yield store


@pytest.mark.parametrize("through", ["pipe", "file", "unbuffered file", "compressed file"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_the_roots_need_is_taken_in_any_order(
    order: str, through: str, store: ContentStore, tmp_path: Path
) -> None:
    blocks = ORDERS[order]
    data = car_of(blocks)
    path = tmp_path / "x.car"
    path.write_bytes(gzip.compress(data) if through == "compressed file" else b"before" + data)
    stream = cast("BinaryIO", Pipe(data))
    if through == "compressed file":
        stream = cast("BinaryIO", gzip.open(path))  # noqa: SIM115 - closed below
    elif through != "pipe":
        stream = path.open("rb", buffering=0 if through == "unbuffered file" else -1)
        stream.seek(len(b"before"))
    with CarImport(store.storage) as transfer:
        with stream:
            transfer.take(stream)
        assert transfer.finish(USER) == [ROOT]
    assert set(multihashes(store.storage)) == MULTIHASHES
    left_out = {cid: block for cid, block in blocks if cid.multihash not in MULTIHASHES}
    assert (transfer.left_out_blocks, transfer.left_out_bytes) == (len(left_out), sum(map(len, left_out.values())))
    assert store.verify(ROOT).ok
    assert [pin.cid for pin in store.pins.list()] == [ROOT]


def test_all_blocks_are_taken_if_that_is_asked_for_or_no_root_is_named(store: ContentStore) -> None:
    extra = junk(3)
    assert store.import_car(io.BytesIO(car_of([*extra[:2], *needed_blocks()])), all_blocks=True) == [ROOT]
    write_car(stream := io.BytesIO(), [], extra[2:])
    stream.seek(0)
    assert store.import_car(stream) == []
    assert set(multihashes(store.storage)) == MULTIHASHES | {cid.multihash for cid, _ in extra}


def take_all(transfer: CarImport, car: bytes) -> None:
    transfer.take(io.BytesIO(car))
    transfer.finish(USER)


@pytest.mark.parametrize("order", ORDERS)
def test_an_import_that_breaks_off_keeps_what_the_rest_may_need(order: str) -> None:
    car = car_of(ORDERS[order])
    reader = CarReader(io.BytesIO(car))
    starts = [reader.frame_offset, *(reader.frame_offset for _ in reader)]
    for cut in range(starts[0] + 5, starts[-1], 700):
        with ContentStore(MemoryStorage()) as store:
            with CarImport(store.storage) as transfer, pytest.raises((InvalidDataError, NotFoundError)):
                take_all(transfer, car[:cut])
            assert transfer.resume_from == max(start for start in starts if start <= cut)
            assert list(store.pins.list()) == []
            part = CarPart(transfer.resume_from, roots=(ROOT,))
            assert store.import_car(cast("BinaryIO", Pipe(car[part.start :])), part=part) == [ROOT]
            assert store.verify(ROOT).ok


def test_the_rest_of_a_car_needs_no_copies_if_its_nodes_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CAR of 50 GB that broke off is continued through a pipe: what comes is known to be needed."""
    car = car_of(needed_blocks())
    reader = CarReader(io.BytesIO(car))
    starts = [reader.frame_offset, *(reader.frame_offset for _ in reader)]
    monkeypatch.setattr(undecided_blocks, "MAX_COPIED_BYTES", 0)
    with ContentStore(MemoryStorage()) as store:
        with pytest.raises(InvalidDataError):
            store.import_car(io.BytesIO(car[: starts[4] + 1]))
        part = CarPart(starts[4], roots=(ROOT,))
        assert store.import_car(cast("BinaryIO", Pipe(car[starts[4] :])), part=part) == [ROOT]


def test_a_block_may_be_needed_by_the_root_of_a_later_car(store: ContentStore) -> None:
    first, second = needed_blocks()[1], needed_blocks()[6]
    below = dict(needed_blocks())
    with CarImport(store.storage) as transfer:
        for root, blocks in ((first[0], needed_blocks()[1:11]), (second[0], [])):
            transfer.take(io.BytesIO(car_of(blocks, root)))
        assert transfer.finish(USER) == [first[0], second[0]]
    assert transfer.left_out_blocks == 0
    assert all(store.storage.blocks.get(cid) == below[cid] for cid, _ in needed_blocks()[1:11])


def test_a_frame_may_name_a_node_as_bytes(store: ContentStore) -> None:
    """Some programs keep blocks by their hashes, and write each under a CID of raw bytes."""
    blocks = [(CID(1, RAW, cid.multihash), block) for cid, block in needed_blocks()]
    assert store.import_car(io.BytesIO(car_of(blocks))) == [ROOT]
    assert set(multihashes(store.storage)) == MULTIHASHES


def test_what_waits_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = needed_blocks()[::-1]
    path = tmp_path / "x.car"
    path.write_bytes(car_of(blocks))
    monkeypatch.setattr(undecided_blocks, "MAX_COPIED_BYTES", 5000)
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        with pytest.raises(InvalidDataError, match=r"blocks .* came before any node .*--all-blocks.*Kept \d+ block"):
            store.import_car(cast("BinaryIO", Pipe(path.read_bytes())))
        assert store.import_car(cast("BinaryIO", Pipe(path.read_bytes())), all_blocks=True) == [ROOT]
    with ContentStore(open_local_storage(tmp_path / "other")) as store, path.open("rb") as file:
        assert store.import_car(file) == [ROOT]
    monkeypatch.setattr(undecided_blocks, "MAX_BLOCKS", 3)
    store = ContentStore(open_local_storage(tmp_path / "third"))
    with store, path.open("rb") as file, pytest.raises(InvalidDataError, match="3 blocks"):
        store.import_car(file)


def test_a_file_that_is_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    path.write_bytes(car_of(needed_blocks()[::-1]))
    with ContentStore(MemoryStorage()) as store:
        with CarImport(store.storage) as transfer:
            with path.open("rb") as file:
                transfer.take(file)
            path.write_bytes(b"\xff" * path.stat().st_size)
            with pytest.raises(IntegrityError, match="was changed while it was imported"):
                transfer.finish(USER)
        assert list(store.pins.list()) == []


def test_a_full_disk_under_what_waits(tmp_path: Path) -> None:
    car = car_of(MIXED)
    for room_for in range(0, 40, 3):
        disk = FullDisk()
        with ContentStore(open_local_storage(tmp_path / str(room_for), disk=disk)) as store:
            disk.room_for = room_for
            try:
                store.import_car(cast("BinaryIO", Pipe(car)))
            except StoreFullError:
                assert not leftovers(tmp_path / str(room_for))
                assert list(store.pins.list()) == []
            disk.room_for = 1_000_000
            assert store.import_car(cast("BinaryIO", Pipe(car))) == [ROOT]
            check_sound(store.storage)  # type: ignore[arg-type]


@pytest.mark.slow
def test_memory_does_not_grow_with_what_waits(tmp_path: Path) -> None:
    count, size = 3000, 10_000
    path = tmp_path / "x.car"
    with path.open("wb") as file:
        write_car(file, [ROOT], [*junk(count, size), *needed_blocks()])
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        for stream in (path.open("rb"), Pipe(path.read_bytes())):
            tracemalloc.start()
            with stream:
                assert store.import_car(cast("BinaryIO", stream)) == [ROOT]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 8 << 20


class Stalling:
    """A pipe whose sender pauses at some byte until it is told to go on."""

    def __init__(self, car: bytes, pause_at: int) -> None:
        reading, self._writing = os.pipe()
        self._stream = os.fdopen(reading, "rb", buffering=0)
        self._unread = pause_at
        self._go_on = threading.Event()
        self._car, self._pause_at = car, pause_at
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        with os.fdopen(self._writing, "wb", buffering=0) as out:
            out.write(self._car[: self._pause_at])
            assert self._go_on.wait(60)
            out.write(self._car[self._pause_at :])

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._unread -= len(data)
        return data

    def wait_until_stalled(self, store: Path) -> None:
        wait_until(
            lambda: self._unread <= 0 and not list(store.glob("sessions/publication-*")),
            timeout_seconds=20,
            what="the import waits, and no publication is open",
        )

    def go_on(self, thread: threading.Thread) -> None:
        self._go_on.set()
        thread.join()
        self._thread.join()
        self._stream.close()


def import_in_thread(store: ContentStore, stream: Any, **options: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(store.import_car(stream, **options))
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


@pytest.mark.parametrize("order", ["depth first", "junk all over", "leaves first"])
@pytest.mark.parametrize("all_blocks", [False, True])
def test_while_an_import_stalls_gc_takes_all_other_garbage(
    order: str, all_blocks: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(import_steps, "STEP_SECONDS", 0.2)
    monkeypatch.setattr(import_steps, "STEP_BLOCKS", 3)
    car = car_of(ORDERS[order])
    found = needed_blocks()[2:4]
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        publish_blocks(store.storage, *(block for _, block in found), owner=None)  # garbage that the import finds
        pipe = Stalling(car, len(car) * 2 // 3)
        thread, results = import_in_thread(store, pipe, all_blocks=all_blocks)
        pipe.wait_until_stalled(tmp_path / "store")
        before = set(multihashes(store.storage))
        garbage = publish_blocks(store.storage, b"small", b"large" * 50_000, owner=None)
        for _ in range(2):
            assert store.collect_garbage().deletable_blocks == 0
        assert not any(store.storage.blocks.has(cid) for cid in garbage)
        if order == "depth first":
            assert before == set(multihashes(store.storage))
        pipe.go_on(thread)
        assert results == [[ROOT]]
        assert store.verify(ROOT).ok
        store.collect_garbage()
        assert store.verify(ROOT).ok
        assert set(multihashes(store.storage)) == MULTIHASHES
        assert not list((tmp_path / "store" / "sessions").glob("hold-*"))
        check_sound(store.storage)  # type: ignore[arg-type]


def test_a_continued_import_holds_what_the_first_part_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(import_steps, "STEP_SECONDS", 0.2)
    car = car_of(needed_blocks())
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        with CarImport(store.storage) as transfer, pytest.raises(InvalidDataError):
            transfer.take(io.BytesIO(car[:9000]))
        part = CarPart(transfer.resume_from, roots=(ROOT,))
        pipe = Stalling(car[part.start :], 100)
        thread, results = import_in_thread(store, pipe, part=part)
        pipe.wait_until_stalled(tmp_path / "store")
        kept = set(multihashes(store.storage))
        store.collect_garbage()
        store.collect_garbage()
        assert set(multihashes(store.storage)) == kept
        pipe.go_on(thread)
        assert results == [[ROOT]]


@pytest.mark.slow
def test_gc_all_the_time_beside_imports_in_any_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(import_steps, "STEP_SECONDS", 0.05)
    monkeypatch.setattr(import_steps, "STEP_BLOCKS", 4)
    has_ended = threading.Event()

    class SlowPipe(Pipe):
        def read(self, size: int = -1) -> bytes:
            has_ended.wait(random.random() / 200)
            return super().read(size)

    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        collecting = threading.Thread(target=lambda: [store.collect_garbage() for _ in iter(has_ended.is_set, True)])
        collecting.start()
        try:
            for number in range(6):
                leaves = [(CID.of(data), data) for data in (b"%d %d" % (number, part) * 9000 for part in range(12))]
                top = node(*(cid for cid, _ in leaves), ROOT)
                blocks = random.sample([top, *leaves, *needed_blocks()], len(leaves) + len(needed_blocks()) + 1)
                assert store.import_car(cast("BinaryIO", SlowPipe(car_of(blocks, top[0])))) == [top[0]]
                assert store.verify(top[0]).ok
                store.pins.remove(top[0])
        finally:
            has_ended.set()
            collecting.join()
        store.collect_garbage()
        check_sound(store.storage)  # type: ignore[arg-type]


def test_a_step_that_ends_while_the_stream_stalls_may_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(import_steps, "STEP_SECONDS", 0.2)
    car = car_of(needed_blocks())
    disk = FullDisk()
    with ContentStore(open_local_storage(tmp_path / "store", disk=disk)) as store:
        pipe = Stalling(car, 3000)
        publish_blocks(store.storage, b"something")
        disk.room_for = 0
        thread, results = import_in_thread(store, pipe)
        pipe.wait_until_stalled(tmp_path / "store")
        assert disk.refused, "the other thread could not keep the step"
        pipe.go_on(thread)
        assert isinstance(results[0], StoreFullError)
        assert [pin.cid for pin in store.pins.list()] == [CID.of(b"something")]
        disk.room_for = 1_000_000
        assert store.import_car(io.BytesIO(car)) == [ROOT]
        check_sound(store.storage)  # type: ignore[arg-type]


def test_what_is_deleted_behind_an_import_is_never_pinned(tmp_path: Path) -> None:
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        with CarImport(store.storage) as transfer:
            transfer.take(io.BytesIO(car_of(needed_blocks())))
            delete_block(store.storage, needed_blocks()[5][0])
            with pytest.raises(NotFoundError, match=str(needed_blocks()[5][0])):
                transfer.finish(USER)
        assert list(store.pins.list()) == []
