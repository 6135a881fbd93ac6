"""What every ``Entries`` must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import Frozen, MfsDirectory, MfsEntry
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import ConflictError, NotFoundError
from support.storages import publish_blocks

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage

ODD_NAMES = [
    "a",
    "a-b",
    "a.b",
    "a0",
    "a b",
    "ä",
    "日本",
    "\U0001f600",
    "A",
    "%",
    "_",
    "'",
    '"',
    "\udcff\udc80",
    "z" * 255,
]


@pytest.fixture
def cid(storage: Storage) -> CID:
    return publish_blocks(storage, b"abc", owner=None)[0]


def put(storage: Storage, cid: CID, *paths: str, root: str = "tree") -> list[MfsEntry]:
    entries = [MfsEntry(root, path, cid, 3, 11, 1_700_000_000_123_456_789) for path in paths]
    with storage.publish() as publication:
        publication.commit(Changes(entries=entries))
    return entries


def names(storage: Storage, path: str, root: str = "tree") -> list[str]:
    return [item.name + ("/" if isinstance(item, MfsDirectory) else "") for item in storage.entries.list(root, path)]


def test_an_entry_comes_back_as_it_was_put(storage: Storage, cid: CID) -> None:
    [entry] = put(storage, cid, "a/b/c.txt")
    assert storage.entries.stat("tree", "a/b/c.txt") == entry
    assert storage.entries.walk("tree", "a/b/c.txt") == [entry]


def test_directories_are_implied(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a/b/c")
    for directory in ("", "a", "a/b"):
        assert storage.entries.stat("tree", directory) == MfsDirectory("tree", directory)
    for nothing in ("b", "a/c", "a/b/c/d", "a/b/cc", "a/"):
        assert storage.entries.stat("tree", nothing) is None
    assert storage.entries.stat("other", "") is None


def test_list_names_what_is_directly_in_a_directory(storage: Storage, cid: CID) -> None:
    put(storage, cid, "f", "a/x", "a-b/x", "a.b", "a0/y/z", "a/b/c", "ab/c")
    assert names(storage, "") == ["a/", "a-b/", "a.b", "a0/", "ab/", "f"]
    assert names(storage, "a") == ["b/", "x"]
    assert names(storage, "a0") == ["y/"]
    assert names(storage, "f") == []
    assert names(storage, "nothing") == []
    assert names(storage, "", root="other") == []


def test_odd_names(storage: Storage, cid: CID) -> None:
    put(storage, cid, *(f"{name}/{name}" for name in ODD_NAMES), *(f"files/{name}" for name in ODD_NAMES))
    in_order = sorted(ODD_NAMES, key=lambda name: name.encode("utf-8", "surrogateescape"))
    assert [item.name for item in storage.entries.list("tree", "files")] == in_order
    assert {item.name for item in storage.entries.list("tree", "")} == {*ODD_NAMES, "files"}
    for name in ODD_NAMES:
        assert names(storage, name) == [name]
        assert storage.entries.stat("tree", f"{name}/{name}") is not None
        assert len(storage.entries.walk("tree", name)) == 1


def test_walk_is_in_order_of_path_bytes(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a/x", "a-b/x", "a.b", "a0/y/z", "a/b/c", "f", "a/b-c")
    assert [entry.path for entry in storage.entries.walk("tree", "")] == [
        "a-b/x", "a.b", "a/b-c", "a/b/c", "a/x", "a0/y/z", "f",
    ]  # fmt: skip
    assert [entry.path for entry in storage.entries.walk("tree", "a")] == ["a/b-c", "a/b/c", "a/x"]
    assert storage.entries.walk("tree", "nothing") == []


def test_the_last_writer_wins(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a/b")
    [other] = publish_blocks(storage, b"other", owner=None)
    [entry] = put(storage, other, "a/b")
    assert storage.entries.stat("tree", "a/b") == entry
    assert len(storage.entries.walk("tree", "")) == 1


@pytest.mark.parametrize("path", ["a/b/c/d", "a/b/c/d/e", "a/b", "a", ""])
def test_a_file_and_a_directory_cannot_share_a_path(storage: Storage, cid: CID, path: str) -> None:
    put(storage, cid, "a/b/c")
    with pytest.raises(ConflictError, match="tree"):
        put(storage, cid, path)
    assert [entry.path for entry in storage.entries.walk("tree", "")] == ["a/b/c"]


def test_entries_of_one_publication_can_conflict(storage: Storage, cid: CID) -> None:
    for paths in (["a", "a/b"], ["a/b", "a"]):
        with pytest.raises(ConflictError):
            put(storage, cid, *paths)
    assert storage.entries.walk("tree", "") == []


def test_delete_reaches_below(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a", "b/c", "b/d/e", "b-x", "b0/y")
    put(storage, cid, "b/c", root="other")
    assert storage.entries.delete("tree", "a") == 1
    assert storage.entries.delete("tree", "b") == 2
    assert storage.entries.delete("tree", "b") == 0
    assert [entry.path for entry in storage.entries.walk("tree", "")] == ["b-x", "b0/y"]
    assert storage.entries.delete("tree", "") == 2
    assert storage.entries.stat("tree", "") is None
    assert len(storage.entries.walk("other", "")) == 1


def test_a_file_can_follow_a_directory_that_is_gone(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a/b")
    storage.entries.delete("tree", "a/b")
    [entry] = put(storage, cid, "a")
    assert storage.entries.stat("tree", "a") == entry


def test_frozen(storage: Storage, cid: CID) -> None:
    frozen = Frozen("tree", "a/b", cid)
    assert not storage.entries.is_frozen(frozen)
    storage.entries.freeze(frozen)
    storage.entries.freeze(frozen)
    assert storage.entries.is_frozen(frozen)
    assert not storage.entries.is_frozen(Frozen("tree", "a", cid))
    assert not storage.entries.is_frozen(Frozen("other", "a/b", cid))
    assert list(storage.entries.list_frozen()) == [frozen]
    storage.collect_garbage()
    assert storage.blocks.has(cid)
    assert storage.entries.unfreeze(frozen)
    assert not storage.entries.unfreeze(frozen)
    with pytest.raises(NotFoundError):
        storage.entries.freeze(Frozen("tree", "a", CID.of(b"not here")))


def test_what_an_entry_names_is_kept(storage: Storage, cid: CID) -> None:
    put(storage, cid, "a/b")
    storage.collect_garbage()
    assert storage.blocks.has(cid)
    storage.entries.delete("tree", "a")
    storage.collect_garbage()
    assert not storage.blocks.has(cid)
