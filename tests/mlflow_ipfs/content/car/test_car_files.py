"""CARv1: round trips, Kubo both ways, and whatever a stream from a stranger may hold."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.car.format import MAX_HEADER_BYTES, CarReader, encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.varint import encode_varint
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError
from support.cars import write_car
from support.storages import delete_block, put_block
from vector_trees import build

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.kubo import KuboRepository

BLOCKS = st.lists(
    st.builds(lambda data, codec: (CID.of(data, codec), data), st.binary(max_size=100), st.sampled_from([RAW, DAG_PB])),
    max_size=6,
)
TREE = {
    "kind": "directory",
    "entries": [
        ["big", {"kind": "file", "size": 3_000_000, "seed": "big"}],
        ["small", {"kind": "file", "text": "small"}],
        ["again", {"kind": "file", "text": "small"}],
        ["empty", {"kind": "file", "text": ""}],
        ["directory", {"kind": "directory", "entries": [["link", {"kind": "symlink", "target": "../small"}]]}],
    ],
}


def car_of(roots: list[CID], blocks: Iterable[tuple[CID, bytes]]) -> bytes:
    stream = io.BytesIO()
    size = write_car(stream, roots, blocks)
    assert size == len(stream.getvalue())
    return stream.getvalue()


@given(blocks=BLOCKS)
def test_what_is_written_is_read(blocks: list[tuple[CID, bytes]]) -> None:
    roots = [cid for cid, _ in blocks[:2]]
    reader = CarReader(io.BytesIO(car_of(roots, blocks)))
    assert reader.roots == roots
    assert list(reader) == blocks


class SlowStream(io.RawIOBase):
    """Gives one byte at a time, as a socket may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1))


def test_streams_may_give_less_than_they_are_asked_for() -> None:
    block = b"x" * 300
    reader = CarReader(SlowStream(car_of([CID.of(block)], [(CID.of(block), block)])))  # type: ignore[arg-type]
    assert list(reader) == [(CID.of(block), block)]


def test_identity_blocks_are_left_out() -> None:
    identity = CID(1, RAW, b"\0\x02hi")
    assert list(CarReader(io.BytesIO(car_of([identity], [(identity, b"hi")])))) == []


def test_identity_blocks_of_others_are_read() -> None:
    identity = CID(1, RAW, b"\0\x02hi")
    data = encode_car_header([identity]) + encode_car_block(identity, b"hi")
    assert list(CarReader(io.BytesIO(data))) == [(identity, b"hi")]


@pytest.fixture
def exported(tmp_path: Path) -> tuple[CID, bytes]:
    build(TREE, tmp_path / "tree")
    with ContentStore(MemoryStorage()) as store:
        cid = store.add(tmp_path / "tree").cid
        stream = io.BytesIO()
        assert store.export_car(cid, stream) == len(stream.getvalue())
    return cid, stream.getvalue()


def test_a_store_takes_in_what_another_gave_out(exported: tuple[CID, bytes], tmp_path: Path) -> None:
    cid, data = exported
    seen: list[int] = []
    with ContentStore(MemoryStorage()) as store:
        assert store.import_car(io.BytesIO(data), progress=seen.append) == [cid]
        assert store.verify(cid, against=tmp_path / "tree").problems == []
        assert [pin.cid for pin in store.pins.list()] == [cid]
        store.collect_garbage()
        assert store.open(cid, "small").read() == b"small"
    assert sum(seen) > 3_000_000


def test_a_car_cut_anywhere_pins_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789" * 30)
    with ContentStore(MemoryStorage()) as store:
        cid = store.wrap(store.add(tmp_path / "f").cid, "name")
        stream = io.BytesIO()
        store.export_car(cid, stream)
    data = stream.getvalue()
    for end in range(len(data)):
        with ContentStore(MemoryStorage()) as store:
            with pytest.raises((InvalidDataError, NotFoundError)):
                store.import_car(io.BytesIO(data[:end]))
            assert list(store.pins.list()) == []


@given(position=st.integers(0, 1 << 20), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_the_content(position: int, flip: int) -> None:
    blocks = [(CID.of(data), data) for data in (b"one", b"two" * 50)]
    data = bytearray(car_of([blocks[0][0]], blocks))
    data[position % len(data)] ^= flip
    try:
        read = list(CarReader(io.BytesIO(bytes(data))))
    except (InvalidDataError, IntegrityError):
        return
    assert all(cid.matches(block) for cid, block in read)


@given(data=st.binary(max_size=200))
def test_any_bytes_after_a_header_are_blocks_or_our_error(data: bytes) -> None:
    try:
        read = list(CarReader(io.BytesIO(encode_car_header([]) + data)))
    except (InvalidDataError, IntegrityError):
        return
    assert all(cid.matches(block) for cid, block in read)


@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_car_or_our_error(data: bytes) -> None:
    try:
        CarReader(io.BytesIO(data))
    except InvalidDataError as error:
        words = str(error)
        assert "CAR" in words or "varint" in words


def header(value: object) -> bytes:
    encoded = encode_dagcbor(value)
    return encode_varint(len(encoded)) + encoded


ROOT = CID.of(b"root")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a CAR"),
        (b"\x00", "not a CAR"),
        (b"PK\x03\x04 a zip file, for example" * 4, "not a CAR|ends early"),
        (encode_varint(MAX_HEADER_BYTES + 1) + b"x", "not a CAR"),
        (encode_varint((1 << 63) - 1), "not a CAR"),
        (b"\xff" * 20, "varint"),
        (header({"version": 2}), "version 2"),
        (bytes.fromhex("0aa16776657273696f6e02"), "version 2"),  # how every CARv2 begins
        (header({"roots": [ROOT]}), "version None"),
        (header({"roots": [ROOT], "version": "1"}), "version 1"),
        (header({"version": 1}), "does not contain a list of roots"),
        (header({"roots": ROOT, "version": 1}), "does not contain a list of roots"),
        (header({"roots": ["text"], "version": 1}), "does not contain a list of roots"),
        (header(["roots", "version"]), "version None"),
        (b"\x05hello", "cannot be decoded"),
        (header({"roots": [], "version": 1})[:-1], "ends early"),
    ],
)
def test_headers_that_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        CarReader(io.BytesIO(data))


@pytest.mark.parametrize(
    ("section", "error", "words"),
    [
        (b"\x00", InvalidDataError, "at byte"),
        (encode_varint(MAX_BLOCK_BYTES + 257), InvalidDataError, "at most"),
        (encode_varint((1 << 63) - 1), InvalidDataError, "at most"),
        (b"\x80\x80", InvalidDataError, "inside a varint"),
        (encode_varint(100) + bytes(ROOT), InvalidDataError, "ends early"),
        (encode_varint(3) + b"\x01\x55\x12", InvalidDataError, "not have a usable CID"),
        (encode_varint(25) + b"\x01\x55\x11\x14" + bytes(21), InvalidDataError, "not have a usable CID"),
        (encode_car_block(ROOT, b"toor"), IntegrityError, "does not hash"),
        (encode_car_block(ROOT, b""), IntegrityError, "does not hash"),
        (encode_car_block(CID(1, RAW, b"\0\x02hi"), b"ho"), IntegrityError, "does not hash"),
    ],
)
def test_blocks_that_are_refused(section: bytes, error: type[Exception], words: str) -> None:
    reader = CarReader(io.BytesIO(encode_car_header([ROOT]) + section))
    with pytest.raises(error, match=words):
        list(reader)


def test_a_block_over_the_limit_is_refused_by_its_size_alone() -> None:
    data = bytes(MAX_BLOCK_BYTES + 1)
    reader = CarReader(io.BytesIO(encode_car_header([ROOT]) + encode_car_block(CID.of(data), data)))
    with pytest.raises(InvalidDataError, match="more than"):
        list(reader)
    largest = bytes(MAX_BLOCK_BYTES)
    assert len(list(CarReader(io.BytesIO(car_of([], [(CID.of(largest), largest)]))))) == 1


def test_declared_lengths_take_no_memory() -> None:
    """In a process that may not have 200 MiB more than it starts with."""
    script = f"""
import io, resource
from mlflow_ipfs.content.car.format import CarReader, encode_car_header
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.content.codecs.dag_cbor import decode_dagcbor
from mlflow_ipfs.content.varint import encode_varint
from mlflow_ipfs.errors import InvalidDataError
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * {resource.getpagesize()} + (200 << 20),) * 2)
calls = [
    lambda: CarReader(io.BytesIO(encode_varint(1 << 40) + b"x")),
    lambda: list(CarReader(io.BytesIO(encode_car_header([]) + encode_varint(1 << 40) + b"x"))),
    lambda: decode_node(b"\\x0a" + encode_varint(1 << 40)),
    lambda: decode_dagcbor(b"\\x5b" + (1 << 40).to_bytes(8, "big")),
    lambda: decode_dagcbor(b"\\x9b" + (1 << 40).to_bytes(8, "big")),
]
for call in calls:
    try:
        call()
    except InvalidDataError:
        continue
    raise SystemExit("not refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_incomplete_root_is_kept_and_can_be_completed(exported: tuple[CID, bytes]) -> None:
    cid, data = exported
    blocks = list(CarReader(io.BytesIO(data)))
    first, second = car_of([cid], blocks[::2]), car_of([cid], blocks[1::2])
    with ContentStore(MemoryStorage()) as store:
        with pytest.raises(NotFoundError, match="is incomplete"):
            store.import_car(io.BytesIO(first))
        assert list(store.pins.list()) == []
        assert store.import_car(io.BytesIO(second)) == [cid]
        assert store.verify(cid).ok


def test_the_same_bytes_under_two_codecs_are_both_followed() -> None:
    """A file whose bytes are a node, beside that node: the node's children must not be left out."""
    storage = MemoryStorage()
    leaf = b"only reached through the node"
    with ContentStore(storage) as store:
        put_block(storage, CID.of(leaf), leaf)
        inner = encode_dagcbor({"leaf": CID.of(leaf)})
        put_block(storage, CID.of(inner), inner)
        outer = encode_dagcbor([CID.of(inner, RAW), CID.of(inner, DAG_CBOR)])
        root = CID.of(outer, DAG_CBOR)
        put_block(storage, root, outer)
        stream = io.BytesIO()
        store.export_car(root, stream)
        assert CID.of(leaf) in [cid for cid, _ in CarReader(io.BytesIO(stream.getvalue()))]
        delete_block(storage, CID.of(leaf))
        with pytest.raises(NotFoundError, match="is incomplete"):
            store.pin(root)
        assert not store.verify(root).ok


@pytest.mark.kubo
def test_kubo_reads_our_cars(
    exported: tuple[CID, bytes], kubo_v1: KuboRepository, kubo_v0: KuboRepository, tmp_path: Path
) -> None:
    cid, data = exported
    for kubo in (kubo_v1, kubo_v0):
        assert f"Pinned root\t{cid}\tsuccess" in kubo("dag", "import", "--stats=false", stdin=data)
        got = tmp_path / kubo.path.parent.name
        kubo("get", str(cid), "-o", got)
        with ContentStore(MemoryStorage()) as store:
            assert store.add(got).cid == cid
            assert store.add(tmp_path / "tree").cid == cid


@pytest.mark.kubo
@pytest.mark.parametrize("fixture", ["kubo_v1", "kubo_v0"])
def test_we_read_the_cars_of_kubo(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kubo: KuboRepository = request.getfixturevalue(fixture)
    build(TREE, tmp_path / "tree")
    cid = kubo("add", "-r", "-Q", tmp_path / "tree")
    data = kubo.run("dag", "export", "--progress=false", cid)
    with ContentStore(MemoryStorage()) as store:
        assert [str(root) for root in store.import_car(io.BytesIO(data))] == [cid]
        report = store.verify(cid, against=tmp_path / "tree")
        assert report.problems == []
        stream = io.BytesIO()
        store.export_car(cid, stream)
        assert sorted(CarReader(io.BytesIO(stream.getvalue())), key=str) == sorted(CarReader(io.BytesIO(data)), key=str)
