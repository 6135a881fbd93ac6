"""CARs into and out of stores: cut anywhere and continued, in steps, with bounded memory, beside gc, on a full disk."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.car import import_steps
from mlflow_ipfs.content.car.format import CarPart, CarReader, encode_car_block
from mlflow_ipfs.content.car.importing import CarImport
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.names.pins import USER
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError, StoreFullError
from support.cars import IDENTITY_CID, sample, write_car
from support.processes import fork_child
from support.storages import FullDisk, check_sound, leftovers, multihashes, put_blocks, rows_of

if TYPE_CHECKING:
    from pathlib import Path


def as_version_2(payload: bytes, start: int = 60) -> bytes:
    header = struct.pack("<16sQQQ", bytes(16), start, len(payload), start + len(payload))
    pragma = bytes.fromhex("0aa16776657273696f6e02")
    return (pragma + header).ljust(start, b"\0") + payload + b"an index that nobody reads"


CARS = [pytest.param(lambda car: car, id="version 1"), pytest.param(as_version_2, id="version 2")]


def frame_starts(car: bytes) -> list[int]:
    reader = CarReader(io.BytesIO(car))
    return [reader.frame_offset, *(reader.frame_offset for _ in reader)]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_steps, "STEP_BLOCKS", 3)


def import_all(transfer: CarImport, stream: io.BytesIO) -> None:
    transfer.take(stream)
    transfer.finish(USER)


@pytest.mark.slow
@pytest.mark.parametrize("make", CARS)
@pytest.mark.usefixtures("small_steps")
def test_an_import_cut_at_any_byte_goes_on_from_where_it_says(make: Any) -> None:
    root, payload, blocks = sample()
    car = make(payload)
    starts = frame_starts(car)
    for end in range(starts[0], starts[-1]):
        storage = MemoryStorage()
        with CarImport(storage) as transfer:
            with pytest.raises((InvalidDataError, NotFoundError)) as caught:
                import_all(transfer, io.BytesIO(car[:end]))
            assert transfer.resume_from == max(start for start in starts if start <= end)
            kept = starts.index(transfer.resume_from)
            assert (transfer.kept_blocks, len(list(multihashes(storage)))) == (kept, kept)
            words = f"before byte {transfer.resume_from} of the CAR" if kept else "No blocks were kept"
            assert words in str(caught.value)
        assert list(storage.pins.list()) == []
        part = CarPart(transfer.resume_from, transfer.payload_end, tuple(transfer.roots))
        with ContentStore(storage) as store:
            assert store.import_car(io.BytesIO(car[part.start :]), part=part) == [root]
            assert [pin.cid for pin in store.pins.list()] == [root]
            assert set(multihashes(storage)) == {cid.multihash for cid in blocks}


@pytest.mark.parametrize("make", CARS)
def test_an_import_cut_anywhere_goes_on_from_its_start_too(make: Any, tmp_path: Path) -> None:
    root, payload, _ = sample()
    car = make(payload)
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        for end in range(0, len(payload), 50):
            with pytest.raises((InvalidDataError, NotFoundError)):
                store.import_car(io.BytesIO(car[:end]))
        assert store.import_car(io.BytesIO(car)) == [root]
        assert store.verify(root).ok


class BrokenStream(io.RawIOBase):
    """Breaks as a connection does: with an error of its own kind."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        self._data = io.BytesIO(data)
        self._error = error

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._data.read(size)
        if not data:
            raise self._error
        return data


class TheirError(Exception):
    """As http.client has: no OSError, nothing of ours."""


@pytest.mark.usefixtures("small_steps")
def test_a_stream_may_break_with_any_error() -> None:
    root, car, _ = sample()
    starts = frame_starts(car)
    for error in (ConnectionResetError("reset"), TheirError("gone")):
        storage = MemoryStorage()
        with pytest.raises(type(error)) as caught, CarImport(storage) as transfer:
            transfer.take(BrokenStream(car[: starts[5] + 10], error))  # type: ignore[arg-type]
        assert f"before byte {starts[5]} of the CAR" in caught.value.__notes__[0]
        assert len(list(multihashes(storage))) == 5
        with ContentStore(storage) as store:
            assert store.import_car(io.BytesIO(car[starts[5] :]), part=CarPart(starts[5], roots=(root,))) == [root]


@pytest.mark.usefixtures("small_steps")
def test_an_interrupt_keeps_every_block_before_it() -> None:
    _, car, _ = sample()
    starts = frame_starts(car)
    storage = MemoryStorage()
    with pytest.raises(KeyboardInterrupt), CarImport(storage) as transfer:
        transfer.take(BrokenStream(car[: starts[5]], KeyboardInterrupt()))  # type: ignore[arg-type]
    assert (transfer.kept_blocks, transfer.resume_from) == (5, starts[5])
    assert len(list(multihashes(storage))) == 5


GOOD = [(CID.of(data), data) for data in (b"one", b"two", b"three")]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"\0", InvalidDataError),
        (b"\xff" * 20, InvalidDataError),
        (encode_car_block(GOOD[0][0], b"wrong"), IntegrityError),
        (b"\x25" + bytes(0x25), InvalidDataError),
        (encode_car_block(CID.of(b"x" * 100), b"x" * 100)[:60], InvalidDataError),
    ],
)
def test_what_comes_before_a_hostile_frame_is_kept_and_nothing_behind_it(frame: bytes, error: type[Exception]) -> None:
    start = io.BytesIO()
    write_car(start, [GOOD[2][0]], GOOD[:2])
    data = start.getvalue() + frame + encode_car_block(*GOOD[2])
    with ContentStore(MemoryStorage()) as store:
        with pytest.raises(error, match=f"2 blocks .* before byte {len(start.getvalue())} of the CAR"):
            store.import_car(io.BytesIO(data))
        assert set(multihashes(store.storage)) == {cid.multihash for cid, _ in GOOD[:2]}
        assert list(store.pins.list()) == []


def test_a_rest_that_begins_at_another_byte_is_refused_with_the_likely_reason() -> None:
    root, car, _ = sample()
    start = frame_starts(car)[4]
    with ContentStore(MemoryStorage()) as store:
        for wrong in (start - 1, start + 1, start + 50):
            with pytest.raises(
                (InvalidDataError, IntegrityError),
                match=f"check whether the stream really begins at byte {start} of the CAR",
            ):
                store.import_car(io.BytesIO(car[wrong:]), part=CarPart(start, roots=(root,)))
        assert list(multihashes(store.storage)) == []


def test_parts_of_one_dag_come_in_any_order_and_pins_come_all_at_once() -> None:
    root, car, blocks = sample()
    first, second, alone = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_car(first, [root], list(blocks.items())[::2])
    write_car(second, [root, root], [*list(blocks.items())[1::2], (IDENTITY_CID, b"hi")])
    write_car(alone, [GOOD[0][0]], [GOOD[0], GOOD[0]])
    del car
    with ContentStore(MemoryStorage()) as store:
        with CarImport(store.storage) as transfer:
            for stream in (alone, first):
                stream.seek(0)
                transfer.take(stream)
            with pytest.raises(NotFoundError, match=str(root)):
                transfer.finish(USER)
        assert list(store.pins.list()) == [], "the root that is whole is not pinned without the other"
        with CarImport(store.storage) as transfer:
            for stream in (second, alone, first):
                stream.seek(0)
                transfer.take(stream)
            assert transfer.finish("me") == [root, GOOD[0][0]]
        assert {(pin.owner, pin.cid) for pin in store.pins.list()} == {("me", root), ("me", GOOD[0][0])}


def test_roots_may_be_identity_cids_and_one_block_may_have_two_versions() -> None:
    node = bytes.fromhex("0a020801")  # an empty directory
    both = [CID.of(node, DAG_PB, version=version) for version in (0, 1)]
    stream = io.BytesIO()
    write_car(stream, [*both, IDENTITY_CID], [(cid, node) for cid in both])
    stream.seek(0)
    with ContentStore(MemoryStorage()) as store:
        assert store.import_car(stream) == [*both, IDENTITY_CID]
        assert len(list(multihashes(store.storage))) == 1
        assert {pin.cid for pin in store.pins.list()} == {*both, IDENTITY_CID}


@pytest.mark.usefixtures("small_steps")
def test_no_gc_takes_what_an_import_has_brought(tmp_path: Path) -> None:
    root, car, blocks = sample()
    with ContentStore(open_local_storage(tmp_path / "store")) as store:

        class CollectingStream(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() % 7 == 0:
                    store.collect_garbage()
                return super().read(size)

        assert store.import_car(CollectingStream(car)) == [root]
        store.collect_garbage()
        assert store.verify(root).blocks == len(blocks) + 1, "and an identity CID"
        check_sound(store.storage)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_steps")
def test_a_disk_that_is_full_at_any_step_costs_one_step_at_most(tmp_path: Path) -> None:
    root, car, blocks = sample()
    counts = set()
    for room_for in range(10):
        disk = FullDisk()
        with ContentStore(open_local_storage(tmp_path / str(room_for), disk=disk)) as store:
            disk.room_for = room_for
            try:
                store.import_car(io.BytesIO(car))
            except StoreFullError as error:
                found = re.search(r"Kept (\d+) blocks", str(error))
                kept = int(found[1]) if found else 0
                counts.add(kept)
                assert len(list(multihashes(store.storage))) == kept
                assert not leftovers(tmp_path / str(room_for))
            disk.room_for = 1_000_000
            assert store.import_car(io.BytesIO(car)) == [root]
            check_sound(store.storage)  # type: ignore[arg-type]
    assert {0, 3, 6, len(blocks)} <= counts


@pytest.mark.usefixtures("small_steps")
def test_a_killed_import_is_run_again(tmp_path: Path) -> None:
    root, car, blocks = sample()
    starts = frame_starts(car)

    class KillingStream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= starts[7]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(size)

    def import_until_killed() -> None:
        with ContentStore(open_local_storage(tmp_path / "store")) as store:
            store.import_car(KillingStream(car))

    _, status = os.waitpid(fork_child(import_until_killed), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        assert len(list(multihashes(store.storage))) == 6, "two steps of three blocks"
        assert store.import_car(io.BytesIO(car)) == [root]
        assert len(list(multihashes(store.storage))) == len(blocks)
        check_sound(store.storage)  # type: ignore[arg-type]


def test_an_import_that_is_run_again_writes_nothing_twice(tmp_path: Path) -> None:
    blocks = [(CID.of(data), data) for data in (os.urandom(60_000) for _ in range(20))]
    stream = io.BytesIO()
    write_car(stream, [], blocks)
    storage = open_local_storage(tmp_path / "store")
    with ContentStore(storage) as store:
        with pytest.raises(InvalidDataError):
            store.import_car(io.BytesIO(stream.getvalue()[:-60_001]))
        first = rows_of(storage, "SELECT name, size FROM place")
        store.import_car(io.BytesIO(stream.getvalue()))
        assert rows_of(storage, "SELECT name, size FROM place") == first, "the last block lies in the index"
        assert len(list(multihashes(storage))) == 20


@given(start=st.integers(0, 1100))
def test_an_export_goes_on_at_any_byte_with_the_same_bytes(start: int) -> None:
    root, car, blocks = sample()
    with ContentStore(MemoryStorage()) as store:
        put_blocks(store.storage, blocks.items())
        stream, seen = io.BytesIO(), list[int]()
        if start > len(car):
            with pytest.raises(InvalidDataError, match=f"has {len(car)} bytes"):
                store.export_car(root, stream, skip_bytes=start)
            assert stream.getvalue() == b""
            return
        assert store.export_car(root, stream, skip_bytes=start, progress=seen.append) == len(car)
        assert stream.getvalue() == car[start:]
        assert sum(seen) == sum(map(len, blocks.values())) + len(b"hi")


def test_leaves_before_the_start_of_an_export_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(5_000_000))
    (tmp_path / "small").write_bytes(b"x" * 1000)
    storage = open_local_storage(tmp_path / "store")
    for profile in ("unixfs-v1-2025", "unixfs-v0-2015"):
        with ContentStore(storage) as store:
            cid = store.wrap(store.add(tmp_path / "f", profile=profile).cid, "name")
            whole = io.BytesIO()
            store.export_car(cid, whole)
            for start in frame_starts(whole.getvalue()):
                rest = io.BytesIO()
                store.export_car(cid, rest, skip_bytes=start)
                assert rest.getvalue() == whole.getvalue()[start:]
            if profile == "unixfs-v1-2025":
                storage.blocks.get = None  # type: ignore[method-assign,assignment]
                with pytest.raises(TypeError):
                    store.export_car(cid, io.BytesIO(), skip_bytes=5_000_000)
                del storage.blocks.get
        storage = open_local_storage(tmp_path / "store")
    storage.close()
