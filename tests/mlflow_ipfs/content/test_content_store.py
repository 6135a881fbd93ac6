"""ContentStore: the facade, over storage in memory."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.listing import Entry
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    IntegrityError,
    InvalidCIDError,
    InvalidDataError,
    InvalidPathError,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    PolicyError,
    SettingsError,
    SourceChangedError,
)
from support.storages import delete_block, multihashes, put_block
from vector_trees import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.kubo import KuboRepository

TREE: dict[str, Any] = {
    "kind": "directory",
    "entries": [
        ["big", {"kind": "file", "size": 3_000_000, "seed": "big"}],
        ["small", {"kind": "file", "text": "small"}],
        [".hidden", {"kind": "file", "text": "hidden"}],
        ["link", {"kind": "symlink", "target": "small"}],
        ["directory", {"kind": "directory", "entries": [["é", {"kind": "file", "text": "inside"}]]}],
    ],
}


@pytest.fixture
def store() -> Iterator[ContentStore]:
    with ContentStore(MemoryStorage()) as opened:
        yield opened


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(TREE, tmp_path / "tree")
    return tmp_path / "tree"


def block_count(store: ContentStore) -> int:
    return sum(1 for _ in multihashes(store.storage))


def test_what_is_added_comes_back(store: ContentStore, tree: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    added = store.add(tree, progress=seen.append)
    assert added.size_bytes == sum(seen) == 3_000_000 + 5 + 6 + 6
    assert added.new_bytes > added.size_bytes
    assert added.dag_bytes > added.size_bytes
    assert added.hidden_left_out == 0
    out = store.view(added.cid, dst=tmp_path / "out")
    assert out == tmp_path / "out"
    assert store.verify(added.cid, against=out).problems == []
    assert store.verify(str(added.cid), against=tree).ok
    assert store.add(tree).new_bytes == 0
    assert store.add(out).cid == added.cid


def test_only_hash_keeps_nothing(store: ContentStore, tree: Path) -> None:
    hashed = store.add(tree, only_hash=True)
    assert hashed.new_bytes == 0
    assert block_count(store) == 0
    assert list(store.pins.list()) == []
    assert store.add(tree).cid == hashed.cid


def test_hidden_names_can_be_left_out(store: ContentStore, tree: Path) -> None:
    added = store.add(tree, hidden=False)
    assert added.hidden_left_out == 1
    assert ".hidden" not in [entry.name for entry in store.ls(added.cid)]


def test_a_wrapper_keeps_the_name(store: ContentStore, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store.add(tree / "small")
    wrapped = store.add(tree / "small", wrap=True)
    assert [(entry.name, entry.cid) for entry in store.ls(wrapped.cid)] == [("small", plain.cid)]
    assert wrapped.size_bytes == 5
    monkeypatch.chdir(tree)
    assert [entry.name for entry in store.ls(store.add(".", wrap=True).cid)] == ["tree"]
    assert [entry.name for entry in store.ls(store.add("directory/", wrap=True).cid)] == ["directory"]
    assert store.wrap(plain.cid, "small") == wrapped.cid


@pytest.mark.kubo
def test_options_are_those_of_kubo(
    store: ContentStore, tree: Path, kubo_v1: KuboRepository, kubo_v0: KuboRepository
) -> None:
    add = ("add", "-r", "-Q", "-n")
    assert str(store.add(tree).cid) == kubo_v1(*add, "-H", tree)
    assert str(store.add(tree, hidden=False).cid) == kubo_v1(*add, tree)
    assert str(store.add(tree, wrap=True).cid) == kubo_v1(*add, "-H", "-w", tree)
    assert str(store.add(tree, profile="unixfs-v0-2015").cid) == kubo_v0(*add, "-H", tree)
    chunked = store.add(tree, profile=UNIXFS_V0_2015, chunker=FixedSizeChunker(4096)).cid
    assert str(chunked) == kubo_v0(*add, "-H", "--chunker=size-4096", tree)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0b", "\ud800"])
def test_names_that_no_wrapper_may_hold(name: str, store: ContentStore) -> None:
    cid = store.add_bytes(b"x")
    with pytest.raises(InvalidPathError):
        store.wrap(cid, name)


def test_pins(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree, pin="run:1").cid
    store.pin(cid, "run:2")
    store.pin(str(cid), "run:2")
    assert sorted(pin.owner for pin in store.pins.list(cid=cid)) == ["run:1", "run:2"]
    assert store.pins.remove(cid, "run:1")
    assert store.collect_garbage().removed_blocks == 0
    assert store.pins.remove(cid, "run:2")
    dry = store.collect_garbage(dry_run=True)
    assert dry.removed_blocks == block_count(store) > 0
    assert store.collect_garbage().removed_blocks == dry.removed_blocks
    assert block_count(store) == 0


def test_adding_without_a_pin(store: ContentStore, tree: Path) -> None:
    store.add(tree, pin=None)
    store.add_bytes(b"x", pin=None)
    assert list(store.pins.list()) == []
    assert block_count(store) > 0


def test_what_is_incomplete_cannot_be_pinned(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree, pin=None).cid
    missing = store.resolve(cid, "directory/é")
    delete_block(store.storage, missing)
    with pytest.raises(NotFoundError, match=str(missing)):
        store.pin(cid)
    assert list(store.pins.list()) == []


def test_bytes_and_streams(store: ContentStore) -> None:
    cid = store.add_bytes(b"hello")
    assert cid == CID.of(b"hello")
    assert list(store.pins.list()) == [Pin("user", cid)]
    data = os.urandom(2_500_000)
    added = store.add_stream(io.BytesIO(data))
    assert added.size_bytes == len(data)
    assert store.open(added.cid).read() == data
    assert store.add_stream(io.BytesIO(data), only_hash=True).cid == added.cid
    assert store.add_bytes(b"") == CID.of(b"")
    assert store.open(CID.of(b"")).read() == b""


def test_listing(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree).cid
    listed = store.ls(cid)
    assert [(entry.name, entry.kind, entry.size_bytes) for entry in listed] == [
        (".hidden", "file", 6),
        ("big", "file", 3_000_000),
        ("directory", "directory", 0),
        ("link", "symlink", 5),
        ("small", "file", 5),
    ]
    assert [entry.is_dir for entry in listed] == [False, False, True, False, False]
    assert store.ls(str(cid), "directory") == [Entry("é", CID.of(b"inside"), "file", 6)]
    assert store.ls(cid, "/directory/") == store.ls(cid, "directory")
    for path, error in (("small", NotDirectoryError), ("no", NotFoundError), ("../x", InvalidPathError)):
        with pytest.raises(error):
            store.ls(cid, path)


def test_stat(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree).cid
    assert store.stat(cid) == Entry("", cid, "directory", 0)
    assert store.stat(cid, "directory/é") == Entry("é", CID.of(b"inside"), "file", 6)
    assert store.stat(cid, "link").kind == "symlink"
    assert store.stat(cid, "big").size_bytes == 3_000_000


def test_opening(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree).cid
    with store.open(cid, "big") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == (tree / "big").read_bytes()[-5:]
    with pytest.raises(IsDirectoryError):
        store.open(cid, "directory")
    with pytest.raises(IsDirectoryError):
        store.open(cid)
    with pytest.raises(NotFoundError):
        store.open(cid, "missing")


@pytest.mark.parametrize("text", ["", "no cid", "../x", "Qm", "localhost"])
def test_malformed_cids(text: str, store: ContentStore) -> None:
    for call in (store.resolve, store.stat, store.ls, store.open, store.view, store.verify, store.pin):
        with pytest.raises(InvalidCIDError):
            call(text)


def test_unknown_cids(store: ContentStore, tmp_path: Path) -> None:
    cid = CID.of(b"never added")
    calls: list[Any] = [
        lambda: store.stat(cid),
        lambda: store.ls(cid),
        lambda: store.open(cid),
        lambda: store.view(cid, dst=tmp_path / "x"),
        lambda: store.pin(cid),
        lambda: store.wrap(cid, "x"),
        lambda: store.export_car(cid, io.BytesIO()),
        lambda: store.resolve(cid, "a"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match=str(cid)):
            call()
    report = store.verify(cid)
    assert not report.ok
    assert not (tmp_path / "x").exists()


def test_views_are_private_and_writable(store: ContentStore, tree: Path) -> None:
    cid = store.add(tree).cid
    view = store.view(cid)
    (view / "small").write_text("changed")
    (view / "new").write_text("new")
    other = store.view(cid)
    assert other != view
    assert (other / "small").read_text() == "small"
    assert store.verify(cid).ok
    assert store.view(cid, "directory/é").read_text() == "inside"
    assert store.view(cid, "directory/é").name == "é"
    assert store.local_path(cid) is None


def test_symlinks_that_lead_out_are_restored_only_on_request(store: ContentStore, tmp_path: Path) -> None:
    build({"kind": "directory", "entries": [["l", {"kind": "symlink", "target": "/etc"}]]}, tmp_path / "t")
    cid = store.add(tmp_path / "t").cid
    with pytest.raises(PolicyError):
        store.view(cid)
    assert os.readlink(store.view(cid, dst=tmp_path / "out", allow_outside_links=True) / "l") == "/etc"


def test_damage_is_named_and_never_handed_on(store: ContentStore, tree: Path, tmp_path: Path) -> None:
    cid = store.add(tree).cid
    small = store.resolve(cid, "small")
    storage: Any = store.storage
    storage._state.blocks[small.multihash] = b"smalL"
    for call in (
        lambda: store.open(cid, "small").read(),
        lambda: store.view(cid, dst=tmp_path / "out"),
        lambda: store.export_car(cid, io.BytesIO()),
    ):
        with pytest.raises(IntegrityError, match=str(small)):
            call()
    assert not (tmp_path / "out" / "small").exists()
    [problem] = store.verify(cid).problems
    assert (problem.cid, problem.path) == (small, "small")


def test_nothing_is_kept_of_an_add_that_fails(store: ContentStore, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree / "zz")
    with pytest.raises(InvalidPathError):
        store.add(tree)
    assert block_count(store) == 0
    assert list(store.pins.list()) == []
    (tree / "zz").unlink()

    def change(count: int) -> None:
        if count > 1000:
            with (tree / "big").open("ab") as file:
                file.write(b"!")

    with pytest.raises(SourceChangedError):
        store.add(tree, progress=change)
    assert block_count(store) == 0
    monkeypatch.undo()
    assert store.add(tree).size_bytes > 3_000_000


def test_metadata_is_kept_on_request(store: ContentStore, tree: Path, tmp_path: Path) -> None:
    (tree / "small").chmod(0o741)
    os.utime(tree / "small", ns=(5, 5))
    cid = store.add(tree, preserve_mode=True, preserve_mtime=True).cid
    assert cid != store.add(tree).cid
    status = (store.view(cid, dst=tmp_path / "out") / "small").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o741, 5)


def test_the_store_has_a_profile_and_a_chunker(tree: Path) -> None:
    with ContentStore(MemoryStorage(), profile=UNIXFS_V0_2015, chunker=FixedSizeChunker(1000)) as store:
        added = store.add(tree / "big")
        assert added.cid.version == 0
        assert added.cid == store.add(tree / "big", profile=UNIXFS_V0_2015, chunker=FixedSizeChunker(1000)).cid
        assert added.cid != store.add(tree / "big", profile="unixfs-v0-2015").cid, "a profile named means its own size"
        with pytest.raises(SettingsError):
            store.add(tree, profile="unixfs-v9")


def test_threads_share_a_store(store: ContentStore, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 1_500_000)
    started = threading.Barrier(8)

    def work(number: int) -> CID:
        started.wait(30)
        cid = store.add(tmp_path / str(number)).cid
        assert store.open(cid).read(10) == bytes([number]) * 10
        assert store.verify(cid, against=tmp_path / str(number)).ok
        return cid

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(8)))) == 8


HOSTILE: dict[str, tuple[bytes, dict[str, type[Exception] | None]]] = {
    # The block; then of each call the error that it must raise, None where it must succeed: pinning takes any block whose
    # links can be read, and stat says what the block itself says. Whatever is not named must raise InvalidDataError.
    "no Data field": (b"", {"pin": None, "verify": None}),
    "UnixFS without a type": (b"\x0a\x00", {"pin": None}),
    "no protobuf": (b"\xff" * 10, {}),
    "a HAMT without a hash function": (b"\x0a\x02\x08\x05", {"stat": None, "open": IsDirectoryError, "pin": None}),
    "a file without the bytes that it states": (
        b"\x0a\x04\x08\x02\x18\x05",
        {"ls": NotDirectoryError, "stat": None, "resolve": NotDirectoryError, "pin": None},
    ),
    "a link without a CID": (b"\x12\x00", {}),
    "an empty file, which is sound": (
        b"\x0a\x02\x08\x00",
        {
            "ls": NotDirectoryError,
            "stat": None,
            "open": None,
            "resolve": NotDirectoryError,
            "view": None,
            "verify": None,
            "pin": None,
        },
    ),
}


@pytest.mark.parametrize("call", ["ls", "stat", "open", "resolve", "view", "verify", "pin"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_content_gives_the_error_that_fits_everywhere(
    store: ContentStore, tmp_path: Path, case: str, call: str
) -> None:
    block, outcomes = HOSTILE[case]
    cid, target = CID.of(block, DAG_PB), tmp_path / "view"
    put_block(store.storage, cid, block)

    def verify() -> None:
        report = store.verify(cid)
        if not report.ok:
            assert [problem.cid for problem in report.problems] == [cid]
            raise InvalidDataError(report.problems[0].reason)

    calls: dict[str, Callable[[], object]] = {
        "ls": lambda: list(store.ls(cid)),
        "stat": lambda: store.stat(cid),
        "open": lambda: store.open(cid).read(),
        "resolve": lambda: store.resolve(cid, "a"),
        "view": lambda: store.view(cid, dst=target),
        "verify": verify,
        "pin": lambda: store.pin(cid),
    }
    expected = outcomes.get(call, InvalidDataError)
    if expected is None:
        calls[call]()
    else:
        with pytest.raises(expected) as caught:
            calls[call]()
        assert type(caught.value) is expected
    assert target.exists() == (call == "view" and expected is None)
    assert [pin.cid for pin in store.pins.list()] == ([cid] if call == "pin" and expected is None else [])
    against = store.verify(cid, against=tmp_path)
    assert {problem.cid for problem in against.problems} == {cid}, "none of it is a directory, as the directory is"


def test_closing_twice_is_no_error() -> None:
    store = ContentStore(MemoryStorage())
    store.close()
    store.close()
