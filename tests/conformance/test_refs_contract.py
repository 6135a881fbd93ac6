"""What every ``Refs`` must do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.refs import Ref
from mlflow_ipfs.errors import ConflictError, NotFoundError
from support.storages import publish_blocks

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage


@pytest.fixture
def cids(storage: Storage) -> list[CID]:
    return publish_blocks(storage, b"one", b"two", owner=None)


def test_a_ref_counts_its_changes(storage: Storage, cids: list[CID]) -> None:
    assert storage.refs.set("a", cids[0], expected_version=0) == Ref("a", cids[0], 1)
    assert storage.refs.set("a", cids[1], expected_version=1) == Ref("a", cids[1], 2)
    assert storage.refs.get("a") == Ref("a", cids[1], 2)


def test_the_loser_of_a_race_is_told(storage: Storage, cids: list[CID]) -> None:
    storage.refs.set("a", cids[0], expected_version=0)
    for wrong in (0, 2):
        with pytest.raises(ConflictError, match="version 1"):
            storage.refs.set("a", cids[1], expected_version=wrong)
        with pytest.raises(ConflictError):
            storage.refs.delete("a", expected_version=wrong)
    assert storage.refs.get("a") == Ref("a", cids[0], 1)


def test_an_unknown_ref_is_not_found(storage: Storage, cids: list[CID]) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        storage.refs.get("nobody")
    with pytest.raises(ConflictError):
        storage.refs.set("nobody", cids[0], expected_version=1)
    with pytest.raises(NotFoundError):
        storage.refs.set("nobody", CID.of(b"not here"), expected_version=0)
    assert list(storage.refs.list()) == []


def test_refs_are_listed_by_name(storage: Storage, cids: list[CID]) -> None:
    for name in ("b", "a/2", "a/1", "a"):
        storage.refs.set(name, cids[0], expected_version=0)
    assert [ref.name for ref in storage.refs.list()] == ["a", "a/1", "a/2", "b"]
    assert [ref.name for ref in storage.refs.list("a/")] == ["a/1", "a/2"]
    storage.refs.delete("a/1", expected_version=1)
    assert [ref.name for ref in storage.refs.list("a/")] == ["a/2"]


def test_what_a_ref_names_is_kept(storage: Storage, cids: list[CID]) -> None:
    storage.refs.set("a", cids[0], expected_version=0)
    storage.collect_garbage()
    assert storage.blocks.has(cids[0])
    assert not storage.blocks.has(cids[1])


def test_of_many_threads_one_wins_each_round(storage: Storage, cids: list[CID]) -> None:
    rounds, threads = 5, 4
    wins: list[int] = []

    def compete() -> None:
        for version in range(rounds):
            while (at := next((ref.version for ref in storage.refs.list("a")), 0)) < version:
                pass
            if at == version:
                try:
                    storage.refs.set("a", cids[0], expected_version=version)
                except ConflictError:
                    continue
                wins.append(version)

    workers = [threading.Thread(target=compete) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert sorted(wins) == list(range(rounds))
    assert storage.refs.get("a").version == rounds
