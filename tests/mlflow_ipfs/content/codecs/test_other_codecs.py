"""Blocks that are not UnixFS: which links are followed, which blocks have none, and paths through data."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_json import decode_dagjson
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data
from mlflow_ipfs.content.names.pins import USER
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidDataError, InvalidPathError, NotDirectoryError, NotFoundError
from support.cars import write_car
from support.storages import put_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.kubo import KuboRepository

LEAF = CID.of(b"leaf")
OTHER = CID.of(b"other")
OLD = CID.parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
UNKNOWN = 0x85  # dag-jose: it may have links


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    storage = MemoryStorage() if request.param == "memory" else open_local_storage(tmp_path / "store")
    with ContentStore(storage) as store:
        yield store


def put(store: ContentStore, block: bytes, codec: int = RAW) -> CID:
    cid = CID.of(block, codec)
    put_block(store.storage, cid, block)
    return cid


def put_directory(store: ContentStore, **entries: CID) -> CID:
    found = [Link(cid, name.encode(), 5) for name, cid in sorted(entries.items())]
    return put(store, encode_node(found, encode_data(UnixFSData(NodeType.DIRECTORY))), DAG_PB)


def dag_json(value: Any) -> bytes:
    """As a program in JavaScript or Go writes it."""
    return json.dumps(value, separators=(",", ":"), default=lambda cid: {"/": str(cid)}).encode()


ENCODERS = [pytest.param(encode_dagcbor, DAG_CBOR, id="dag-cbor"), pytest.param(dag_json, DAG_JSON, id="dag-json")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"/":"<LEAF>"}', [LEAF]),
        ('{"a":[{"/":"<OTHER>"},1,{"b":{"/":"<OLD>"}}],"c":{"/":"<LEAF>"}}', [OTHER, OLD, LEAF]),
        (' { "z" : {"/" : "<LEAF>"}, "a":{"/":"<OTHER>"} } ', [LEAF, OTHER]),
        ('{"/":{"bytes":"aGk"}}', []),
        ('{"/":{"bytes":7}}', []),
        ('{"/":7}', []),
        ('{"/":{"/":"<LEAF>"}}', [LEAF]),
        ('["<LEAF>",null,true,1.5,-3,{"link":"<LEAF>"}]', []),
        ("null", []),
    ],
)
def test_links_of_dag_json(text: str, found: list[CID]) -> None:
    for name, cid in (("<LEAF>", LEAF), ("<OTHER>", OTHER), ("<OLD>", OLD)):
        text = text.replace(name, str(cid))
    block = text.encode()
    assert list(links(CID.of(block, DAG_JSON), block)) == found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]2",
        b"\xff",
        b'{"/":"no cid"}',
        b'{"/":"%s","more":1}' % str(LEAF).encode(),
        b'{"more":1,"/":"%s"}' % str(LEAF).encode(),
        b'{"/":{"bytes":"aGk","more":1}}',
        b'{"/":{"bytes":"!"}}',
        b'{"a":1,"a":{"/":"%s"}}' % str(LEAF).encode(),
        b"[NaN]",
        b"[Infinity]",
        b"9" * 5000,
        b"[" * 200 + b"]" * 200,
        b"[" * 100_000,
        '"text"'.encode("utf-16"),
    ],
)
def test_what_is_no_dag_json(data: bytes) -> None:
    cid = CID.of(data, DAG_JSON)
    with pytest.raises(InvalidDataError, match=str(cid)):
        links(cid, data)


@given(data=st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_dag_json_or_our_error(data: bytes) -> None:
    try:
        decode_dagjson(data)
    except InvalidDataError:
        return


@pytest.mark.parametrize(("encode", "codec"), ENCODERS)
def test_links_of_data_are_followed(store: ContentStore, encode: Any, codec: int) -> None:
    directory = put_directory(store, f=put(store, b"leaf"))
    root = put(store, encode({"a": [directory, {"b": OTHER}]}), codec)
    for use in (store.pin, lambda cid: store.export_car(cid, io.BytesIO())):
        with pytest.raises(NotFoundError, match=str(OTHER)):
            use(root)
    assert [problem.cid for problem in store.verify(root).problems] == [OTHER]
    put(store, b"other")
    store.pin(root)
    store.collect_garbage()
    assert store.verify(root).ok
    assert store.verify(root).blocks == 4
    car = io.BytesIO()
    store.export_car(root, car)
    car.seek(0)
    with ContentStore(MemoryStorage()) as other:
        assert other.import_car(car) == [root]
        assert other.verify(root).blocks == 4


@pytest.mark.parametrize("codec", [JSON, CBOR])
def test_leaves_have_no_links(store: ContentStore, codec: int) -> None:
    leaf = put(store, dag_json({"a": {"/": str(OTHER)}}), codec)
    root = put_directory(store, leaf=leaf)
    store.pin(root)
    store.collect_garbage()
    assert store.verify(leaf).ok
    [problem] = store.verify(root).problems  # `get` could not write it to disk
    assert (problem.cid, problem.path) == (leaf, "leaf")
    assert store.export_car(root, io.BytesIO()) > 0


def test_a_dag_with_an_unsupported_codec_is_never_reported_as_complete(store: ContentStore) -> None:
    child = put(store, b"who knows", UNKNOWN)
    root = put_directory(store, child=child)
    car = io.BytesIO()
    write_car(car, [root], [(cid, store.storage.blocks.get(cid)) for cid in (root, child)])
    car.seek(0)
    words = f"{child} has codec 0x85, which is not supported, so the blocks below it are unknown"
    for use in (store.pin, lambda cid: store.export_car(cid, io.BytesIO()), lambda _: store.import_car(car)):
        with pytest.raises(InvalidDataError, match=words):
            use(root)
    [problem] = store.verify(root).problems
    assert (problem.cid, problem.path) == (child, "child")
    assert "codec 0x85, which is not supported" in problem.reason
    assert list(store.pins.list()) == []


def test_a_child_that_is_not_unixfs_does_not_fail_the_list(store: ContentStore) -> None:
    children = {
        "absent": CID.of(b"absent", DAG_CBOR),
        "data": put(store, encode_dagcbor({}), DAG_CBOR),
        "file": put(store, b"file"),
        "json": put(store, b"{}", JSON),
        "unknown": put(store, b"?", UNKNOWN),
    }
    root = put_directory(store, **children)
    kinds = {entry.name: entry.kind for entry in store.ls(root)}
    assert kinds == {name: "file" if name == "file" else "unknown" for name in children}
    assert [entry.size_bytes for entry in store.ls(root)] == [5] * 5
    assert {entry.name: entry.cid for entry in store.ls(root)} == children
    for name in ("data", "json", "unknown"):
        for use in (store.open, store.stat, store.ls):
            with pytest.raises(InvalidDataError, match=f"{children[name]} has codec .* neither a file nor a directory"):
                use(root, name)
    with pytest.raises(InvalidDataError, match="name a path in it"):
        store.stat(root, "data")


@pytest.mark.parametrize(("encode", "codec"), ENCODERS)
class TestPaths:
    @pytest.fixture
    def root(self, store: ContentStore, encode: Any, codec: int) -> CID:
        leaf = put(store, b"leaf")
        directory = put_directory(store, file=leaf, data=put(store, encode({"deep": leaf}), codec))
        inner = put(store, encode([directory, {"b": leaf}]), codec)
        alone = put(store, encode(inner), codec)
        return put(
            store, encode({"a": [{"b": leaf}, directory], "é": inner, "alone": alone, "text": "t", "0": 1}), codec
        )

    @pytest.mark.parametrize(
        ("path", "data"),
        [
            ("a/0/b", b"leaf"),
            ("/a/1/file/", b"leaf"),
            ("é/0/file", b"leaf"),
            ("é/1/b", b"leaf"),
            ("a/1/data/deep", b"leaf"),
            ("alone/1/b", b"leaf"),
        ],
    )
    def test_lead_to_files(self, store: ContentStore, root: CID, path: str, data: bytes, tmp_path: Path) -> None:
        assert store.resolve(root, path) == LEAF
        assert store.open(root, path).read() == data
        assert store.stat(root, path).kind == "file"
        assert store.view(root, path, dst=tmp_path / "out").read_bytes() == data

    def test_lead_to_directories(self, store: ContentStore, root: CID) -> None:
        assert [entry.name for entry in store.ls(root, "a/1")] == ["data", "file"]
        assert store.resolve(root) == root

    @pytest.mark.parametrize(
        ("path", "error", "words"),
        [
            ("b", NotFoundError, "no key 'b'; its keys: .*'a'"),
            ("a/2", NotFoundError, "/a has 2 items, counted from 0, but no item '2'"),
            ("a/-1", NotFoundError, "no item '-1'"),
            ("a/00", NotFoundError, "no item '00'"),
            ("a/" + "9" * 5000, NotFoundError, "no item '999"),
            ("a/x", NotFoundError, "no item 'x'"),
            ("a/0/c/d", NotFoundError, "/a/0 has no key 'c'"),
            ("text/x", NotDirectoryError, "/text is a string, so it has no entry 'x'"),
            ("0/x", NotDirectoryError, "/0 is a number"),
            ("a", NotFoundError, "/a is a list inside the block"),
            ("a/0", NotFoundError, "/a/0 is a map inside the block"),
            ("text", NotFoundError, "/text is a string inside the block"),
            ("a/1/no", NotFoundError, "no entry 'no'"),
            ("a/1/file/x", NotDirectoryError, "'x'"),
            ("a/..", InvalidPathError, "'..'"),
        ],
    )
    def test_that_lead_nowhere(
        self, store: ContentStore, root: CID, path: str, error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words) as caught:
            store.resolve(root, path)
        assert path[:60] in str(caught.value)


@pytest.mark.kubo
@pytest.mark.parametrize("codec", ["dag-cbor", "dag-json"])
def test_kubo_finds_the_same_links_and_paths(codec: str, kubo_v1: KuboRepository, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("text")
    directory = kubo_v1("add", "-r", "-Q", tmp_path / "directory")
    leaf = kubo_v1("add", "-Q", "--raw-leaves", stdin=b"leaf")
    value = {"a": [{"b": {"/": leaf}}, {"/": directory}], "bytes": {"/": {"bytes": "aGk"}}, "n": [1, 1.5, None, True]}
    root = kubo_v1("dag", "put", f"--store-codec={codec}", stdin=json.dumps(value).encode())
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        assert store.import_car(io.BytesIO(kubo_v1.run("dag", "export", root))) == [CID.parse(root)]
        assert [pin.owner for pin in store.pins.list()] == [USER]
        for path in ("a/0/b", "a/1", "a/1/file"):
            printed = kubo_v1("dag", "resolve", f"/ipfs/{root}/{path}")
            assert str(store.resolve(root, path)) == printed
        ours = io.BytesIO()
        store.export_car(root, ours)
        assert ours.getvalue() == kubo_v1.run("dag", "export", root)
