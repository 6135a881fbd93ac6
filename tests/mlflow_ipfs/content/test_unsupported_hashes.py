"""CIDs with a hash function that is not supported, wherever one arrives: the error says so, and names the function."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError, NotFoundError
from support.cars import write_car
from support.storages import put_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLAKE3 = b"\x1e\x20" + bytes(range(32))
CHILD = CID(1, RAW, BLAKE3)
WORDS = r"its hash function blake3 \(0x1e\) is not supported; supported are sha2-256"
GOOD = CID.of(b"good")


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    storage = MemoryStorage() if request.param == "memory" else open_local_storage(tmp_path / "store")
    with ContentStore(storage) as store:
        yield store


def car(roots: list[CID], blocks: list[tuple[CID, bytes]]) -> io.BytesIO:
    stream = io.BytesIO()
    write_car(stream, roots, blocks)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("codec", [DAG_PB, RAW])
def test_a_root_of_a_car(store: ContentStore, codec: int) -> None:
    root = CID(1, codec, BLAKE3)
    with pytest.raises(InvalidDataError, match=f"root {root} .*{WORDS}"):
        store.import_car(car([GOOD, root], [(root, b"?"), (GOOD, b"good")]))


def test_a_block_of_a_car(store: ContentStore) -> None:
    with pytest.raises(InvalidDataError, match=f"the block at byte .*{CHILD} .*{WORDS}"):
        store.import_car(car([GOOD], [(GOOD, b"good"), (CHILD, b"?")]))
    assert store.storage.blocks.has(GOOD)


def test_a_block_that_is_asked_for_or_put(store: ContentStore) -> None:
    assert not store.storage.blocks.has(CHILD)
    with pytest.raises(NotFoundError, match=f"{CHILD} .*{WORDS}"):
        store.storage.blocks.get(CHILD)
    with pytest.raises(InvalidCIDError, match=WORDS):
        put_block(store.storage, CHILD, b"?")
    for use in (store.ls, store.pin, store.resolve):
        with pytest.raises(InvalidCIDError, match=WORDS):
            use(str(CHILD))


def test_a_child_does_not_make_its_parent_unreadable(store: ContentStore) -> None:
    links = [Link(GOOD, b"good", 4), Link(CHILD, b"other", 1)]
    directory = encode_node(links, encode_data(UnixFSData(NodeType.DIRECTORY)))
    record = encode_dagcbor({"good": GOOD, "other": CHILD})
    for block, codec in ((directory, DAG_PB), (record, DAG_CBOR)):
        root = CID.of(block, codec)
        with pytest.raises(NotFoundError, match=f"{root} is incomplete: the block {CHILD} is missing: {WORDS}"):
            store.import_car(car([root], [(root, block), (GOOD, b"good")]))
        assert store.resolve(root) == root
        with pytest.raises(NotFoundError, match=f"{CHILD} is missing: {WORDS}"):
            store.pin(root)
        [problem] = store.verify(root).problems
        assert problem.cid == CHILD
        assert "blake3" in problem.reason
        with pytest.raises(NotFoundError, match=f"{CHILD} .*{WORDS}"):
            store.export_car(root, io.BytesIO())
    root = CID.of(directory, DAG_PB)
    assert [entry.name for entry in store.ls(root)] == ["good", "other"]
    assert store.open(root, "good").read() == b"good"
    with pytest.raises(NotFoundError, match=f"{CHILD} .*{WORDS}"):
        store.open(root, "other").read()
