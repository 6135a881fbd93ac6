from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.binding.artifacts.snapshots import snapshot_in_memory
from mlflow_ipfs.binding.locations import IpfsPath
from mlflow_ipfs.binding.uris import MlflowUri, locate, parse_content_name
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import PinState
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError, NotFoundError
from support.storages import multihashes

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
OLD = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"  # an empty file of CIDv0


@pytest.mark.parametrize("prefix", ["", "/ipfs/", "ipfs://", "ipfs:/", "IPFS://"])
@pytest.mark.parametrize("cid", [EMPTY, OLD])
@pytest.mark.parametrize("path", ["", "a", "a/b c/ü", "a#b"])
def test_a_cid_in_all_its_spellings(prefix: str, cid: str, path: str) -> None:
    if "#" in path and "ipfs:" in prefix.lower():
        with pytest.raises(InvalidPathError):
            parse_content_name(f"{prefix}{cid}/{path}")
        return
    assert parse_content_name(f"{prefix}{cid}/{path}" if path else f"{prefix}{cid}") == IpfsPath(CID.parse(cid), path)


def test_other_names() -> None:
    assert parse_content_name("mfs://mlflow/a/b") == MfsPath("mlflow", "a/b")
    assert parse_content_name("models:/digits@champion") == MlflowUri("models:/digits@champion")
    assert parse_content_name("runs:/0123/model") == MlflowUri("runs:/0123/model")


@pytest.mark.parametrize("text", ["", "x", "/ipfs/", "ipfs://", "ipfs://example.com/x", f"http/{EMPTY}"])
def test_no_cid(text: str) -> None:
    with pytest.raises(InvalidCIDError):
        parse_content_name(text)


@pytest.mark.parametrize(
    "text", [f"{EMPTY}/../x", f"{EMPTY}/a//b", "mfs:/x", "models:/", "runs:", "https://example.com/x"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidPathError):
        parse_content_name(text)


@pytest.fixture
def store() -> ContentStore:
    """With two files in a mutable tree."""
    store = ContentStore(MemoryStorage())
    store.files.put_stream(MfsPath("mlflow", "run/a.txt"), io.BytesIO(b"a"))
    store.files.put_stream(MfsPath("mlflow", "run/sub/b.txt"), io.BytesIO(b"b"))
    return store


def test_a_snapshot_reads_as_content_and_leaves_no_block_behind(store: ContentStore, tmp_path: Path) -> None:
    before = set(multihashes(store.storage))
    snapshot, cid = snapshot_in_memory(store, MfsPath("mlflow", "run"))
    assert [entry.name for entry in snapshot.ls(cid)] == ["a.txt", "sub"]
    assert snapshot.open(cid, "sub/b.txt").read() == b"b"
    assert snapshot.verify(cid).blocks == 4
    snapshot.view(cid, dst=tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "b.txt").read_bytes() == b"b"
    assert set(multihashes(store.storage)) == before
    assert not store.storage.blocks.has(cid)


def test_a_snapshot_has_the_cid_that_freezing_gives(store: ContentStore) -> None:
    _, cid = snapshot_in_memory(store, MfsPath("mlflow", "run"))
    assert store.files.freeze(MfsPath("mlflow", "run"), "somebody", state=PinState.CONFIRMED).cid == cid


def test_a_snapshot_stays_as_it_was(store: ContentStore) -> None:
    snapshot, cid = snapshot_in_memory(store, MfsPath("mlflow", "run"))
    store.files.put_stream(MfsPath("mlflow", "run/a.txt"), io.BytesIO(b"changed"))
    assert snapshot.open(cid, "a.txt").read() == b"a"


def test_a_snapshot_of_one_file_is_the_file(store: ContentStore) -> None:
    found = locate(store, MfsPath("mlflow", "run/a.txt"))
    assert found.store.open(found.cid).read() == b"a"


def test_a_frozen_path_is_read_where_it_is_frozen_only(store: ContentStore) -> None:
    cid = store.files.freeze(MfsPath("mlflow", "run"), "somebody").cid
    found = locate(store, MfsPath("mlflow", f"run/@{cid}/sub/b.txt"))
    assert (found.cid, found.path, found.name) == (cid, "sub/b.txt", "b.txt")
    with pytest.raises(NotFoundError, match="not frozen under"):
        locate(store, MfsPath("mlflow", f"run/sub/@{cid}"))


def test_nothing_there(store: ContentStore) -> None:
    with pytest.raises(NotFoundError):
        locate(store, MfsPath("mlflow", "elsewhere"))
