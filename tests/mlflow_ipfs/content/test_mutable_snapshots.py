"""Snapshots of mutable trees as CIDs, and freezing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.profiles import PROFILES, UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    InvalidCIDError,
    NotFoundError,
)
from support.mutable_trees import OWNER, TOP, A, put, store
from support.random_trees import files, names
from vector_trees import Recipe, build, encode_name

if TYPE_CHECKING:
    from pathlib import Path

    from support.kubo import KuboRepository

__all__ = ["store"]


def directories(child: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
    """Directories without symlinks and reserved names, with at least one entry: what entries can hold."""
    usable = names().filter(lambda name: not name.startswith(b"@"))
    return st.dictionaries(usable, child, min_size=1, max_size=4).map(
        lambda entries: {"kind": "directory", "entries": [[encode_name(name), each] for name, each in entries.items()]}
    )


def file_trees() -> st.SearchStrategy[Recipe]:
    return directories(st.recursive(files([0, 1, 100, 300_000]), directories, max_leaves=8))


@pytest.mark.parametrize("profile", PROFILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=file_trees())
@pytest.mark.slow
def test_a_snapshot_has_the_cid_of_the_directory(
    profile: str, tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> None:
    directory = tmp_path_factory.mktemp("trees") / "tree"
    build(recipe, directory)
    options = ImportOptions(profile=PROFILES[profile])
    with ContentStore(MemoryStorage(), profile=PROFILES[profile]) as store:
        store.files.put_tree(A, directory)
        with Importer(HashOnlyPublication(), options) as importer:
            expected = importer.import_path(directory)
        added = store.files.snapshot(A)
        assert (added.cid, added.size_bytes) == (expected.link.cid, expected.size_bytes)
        assert added.dag_bytes == expected.link.size_bytes
        assert store.verify(added.cid, against=directory).problems == []
        whole = store.files.snapshot(TOP)
        assert store.resolve(whole.cid, "a") == added.cid


@pytest.mark.kubo
@pytest.mark.parametrize("profile", PROFILES)
def test_a_snapshot_has_the_cid_that_kubo_gives(profile: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kubo: KuboRepository = request.getfixturevalue("kubo_v1" if profile == UNIXFS_V1_2025.name else "kubo_v0")
    wide = {"count": 2800, "name": "%061d", "each": {"kind": "file", "text": "x"}}
    recipe = {
        "kind": "directory",
        "entries": [
            ["wide", {"kind": "directory", "numbered": wide}],
            ["model", {"kind": "directory", "entries": [["MLmodel", {"kind": "file", "text": "flavors: {}"}]]}],
            ["weights", {"kind": "file", "size": 2_000_000, "seed": "w"}],
        ],
    }
    build(recipe, tmp_path / "tree")
    with ContentStore(MemoryStorage(), profile=PROFILES[profile]) as store:
        store.files.put_tree(A, tmp_path / "tree")
        cid = store.files.snapshot(A).cid
    assert str(cid) == kubo("add", "-r", "-Q", "-H", "--only-hash", tmp_path / "tree")


def test_a_snapshot_of_a_file_is_the_file(store: ContentStore) -> None:
    entry = put(store, "a/f")
    assert store.files.snapshot(TOP.join("a/f")).cid == entry.cid


def test_a_snapshot_can_keep_nothing_and_can_pin(store: ContentStore) -> None:
    put(store, "a/b/f")
    added = store.files.snapshot(A, only_hash=True)
    assert added.new_bytes == 0
    assert not store.storage.blocks.has(added.cid)
    pinned = store.files.snapshot(A, changes=Changes(pins=[Pin("x", added.cid)]))
    assert pinned.cid == added.cid
    assert pinned.new_bytes > 0
    assert [pin.owner for pin in store.pins.list()] == ["x"]
    with pytest.raises(NotFoundError, match="nothing"):
        store.files.snapshot(TOP.join("nothing"))


def test_a_snapshot_does_not_change_with_the_files(store: ContentStore) -> None:
    put(store, "a/f", b"one")
    before = store.files.freeze(A, OWNER).cid
    put(store, "a/f", b"two")
    store.files.delete(A)
    store.collect_garbage()
    assert store.open(before, "f").read() == b"one"


def test_freezing_pins_and_opens_one_path(store: ContentStore) -> None:
    put(store, "1/artifacts/model/MLmodel", b"m")
    model = TOP.join("1/artifacts/model")
    added = store.files.freeze(model, OWNER)
    assert list(store.pins.list()) == [Pin(OWNER, added.cid, PinState.PENDING)]
    frozen = model.join(f"@{added.cid}")
    assert store.files.split_frozen(frozen) == (added.cid, "")
    assert store.files.split_frozen(frozen.join("MLmodel/@x")) == (added.cid, "MLmodel/@x")
    assert store.files.split_frozen(model) is None
    assert store.files.split_frozen(TOP) is None
    for elsewhere in (TOP, TOP.join("1"), TOP.join("2/artifacts/model"), MfsPath("other", "1/artifacts/model")):
        with pytest.raises(NotFoundError, match="not frozen under"):
            store.files.split_frozen(elsewhere.join(f"@{added.cid}"))
    with pytest.raises(NotFoundError):
        store.files.split_frozen(model.join(f"@{CID.of(b'other')}"))
    with pytest.raises(InvalidCIDError):
        store.files.split_frozen(model.join("@nonsense"))


def test_freezing_twice_is_no_error(store: ContentStore) -> None:
    put(store, "a/f")
    first = store.files.freeze(A, OWNER)
    second = store.files.freeze(A, OWNER, state=PinState.CONFIRMED)
    assert first.cid == second.cid
    assert second.new_bytes == 0
    assert list(store.pins.list()) == [Pin(OWNER, first.cid, PinState.CONFIRMED)]


def test_nothing_cannot_be_frozen(store: ContentStore) -> None:
    with pytest.raises(NotFoundError):
        store.files.freeze(A, OWNER)
    assert list(store.pins.list()) == []
