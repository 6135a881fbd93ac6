"""A local store with an untrusted source behind it: what reads, and what looks at local content alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.verifying import VerifyingReader
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import NotFoundError, RemoteError
from support.fetchers import MemoryFetcher
from support.storages import multihashes, put_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID

DATA = bytes(range(256)) * 12_000  # three leaves


class Tiered:
    """A directory that only a source has, and a store that reads through to it."""

    def __init__(self, local: LocalStorage, tmp_path: Path) -> None:
        self.local = local
        self.source = ContentStore(MemoryStorage())
        (tmp_path / "data" / "sub").mkdir(parents=True)
        (tmp_path / "data" / "big").write_bytes(DATA)
        (tmp_path / "data" / "sub" / "small").write_bytes(b"small")
        self.path = tmp_path / "data"
        self.root = self.source.add(self.path).cid
        self.fetcher = MemoryFetcher(self.source.storage.blocks)
        self.store = ContentStore(local, remote=VerifyingReader(self.fetcher, timeout_seconds=5))

    def have(self, *paths: str) -> None:
        """Let the local storage have the blocks at some paths, as an interrupted transfer would."""
        for path in paths:
            cid = self.source.resolve(self.root, path)
            put_block(self.local, cid, self.source.storage.blocks.get(cid))

    def pins(self) -> list[CID]:
        return [pin.cid for pin in self.local.pins.list()]


@pytest.fixture
def tiered(tmp_path: Path) -> Iterator[Tiered]:
    with open_local_storage(tmp_path / "store", timeout_seconds=5) as local:
        yield Tiered(local, tmp_path)


def test_content_is_read_through(tiered: Tiered, tmp_path: Path) -> None:
    store = tiered.store
    assert [entry.name for entry in store.ls(tiered.root)] == ["big", "sub"]
    with store.open(tiered.root, "big") as file:
        assert file.read() == DATA
    assert store.view(tiered.root, dst=tmp_path / "copy").joinpath("sub/small").read_bytes() == b"small"
    assert store.local_path(tiered.root, "sub/small") is None
    asked = len(tiered.fetcher.fetched)
    assert store.verify(tiered.root, against=tiered.path).ok
    assert len(tiered.fetcher.fetched) == asked, "nothing is fetched twice"


def test_a_pin_needs_all_of_it_here(tiered: Tiered) -> None:
    tiered.have("", "sub", "sub/small")
    with pytest.raises(NotFoundError, match="is incomplete"):
        tiered.store.pin(tiered.root)
    assert tiered.pins() == []


def test_a_pin_of_what_was_read_keeps_it(tiered: Tiered) -> None:
    assert tiered.store.verify(tiered.root).ok
    tiered.store.pin(tiered.root)
    tiered.fetcher.is_away = True
    tiered.local.collect_garbage()
    assert tiered.store.verify(tiered.root, against=tiered.path).ok
    assert tiered.pins() == [tiered.root]


def test_a_path_of_mfs_needs_all_of_its_file_here(tiered: Tiered) -> None:
    tiered.have("big")
    with pytest.raises(NotFoundError, match="is incomplete"):
        tiered.store.files.put_cid(MfsPath("tree", "run/big"), tiered.source.resolve(tiered.root, "big"))
    assert list(tiered.local.roots()) == []


def test_a_node_that_exists_only_remotely_does_not_stop_a_gc(tiered: Tiered) -> None:
    kept = tiered.store.add_bytes(b"kept")
    garbage = tiered.store.add_bytes(b"garbage", pin=None)
    tiered.store.ls(tiered.root)
    tiered.store.files.put_stream(MfsPath("tree", "file"), io.BytesIO(b"named"))
    tiered.fetcher.is_away = True
    assert tiered.local.collect_garbage().removed_blocks == 1
    assert kept.multihash in set(multihashes(tiered.local))
    assert garbage.multihash not in set(multihashes(tiered.local))


def test_a_source_that_is_away_is_no_damage(tiered: Tiered) -> None:
    tiered.have("")
    tiered.fetcher.is_away = True
    with pytest.raises(RemoteError):
        tiered.store.verify(tiered.root)
    with pytest.raises(RemoteError):
        tiered.store.verify(tiered.root, against=tiered.path)


def test_closing_keeps_what_was_fetched(tiered: Tiered) -> None:
    cid = tiered.store.resolve(tiered.root, "sub/small")
    tiered.store.open(cid).read()
    tiered.store.close()
    with open_local_storage(tiered.local.directory) as local:
        assert local.blocks.get(cid) == b"small"
