"""What every ``Fetcher`` must do. A new one is a line in ``fetchers``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.fetcher import Deadline, Fetcher
from mlflow_ipfs.content.blocks.verifying import VerifyingReader
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.errors import NotFoundError, RemoteError
from support.fetchers import MemoryFetcher
from support.storages import publish_file

if TYPE_CHECKING:
    from collections.abc import Iterator


class Case:
    """A fetcher, and the source behind it."""

    def __init__(self) -> None:
        self.source = MemoryStorage()
        self.root = publish_file(self.source, bytes(range(256)) * 40, max_links=3)
        self.memory = MemoryFetcher(self.source.blocks)
        self.fetcher: Fetcher = self.memory

    def go_away(self) -> None:
        self.memory.is_away = True

    def become_slow(self) -> None:
        self.memory.delay_seconds = 5


@pytest.fixture(params=[Case])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    made = request.param()
    yield made
    made.fetcher.close()
    made.fetcher.close()


def test_a_block_is_fetched(case: Case) -> None:
    assert case.root.matches(case.fetcher.fetch(case.root, Deadline.after(5)))


def test_an_absent_block_is_not_found(case: Case) -> None:
    absent = CID.of(b"never published")
    with pytest.raises(NotFoundError, match=str(absent)):
        case.fetcher.fetch(absent, Deadline.after(5))
    with pytest.raises(NotFoundError, match=str(absent)):
        list(case.fetcher.fetch_dag(absent, Deadline.after(5)))


def test_a_source_that_cannot_be_reached_is_not_an_absent_block(case: Case) -> None:
    case.go_away()
    with pytest.raises(RemoteError, match="memory://source") as caught:
        case.fetcher.fetch(case.root, Deadline.after(5))
    assert caught.value.transient
    with pytest.raises(RemoteError):
        VerifyingReader(case.fetcher, timeout_seconds=5).has(case.root)


def test_a_deadline_ends_the_wait(case: Case) -> None:
    case.become_slow()
    start = time.monotonic()
    with pytest.raises(RemoteError, match=r"0\.1 s"):
        case.fetcher.fetch(case.root, Deadline.after(0.1))
    assert time.monotonic() - start < 2


def test_a_dag_comes_whole_and_parents_first(case: Case) -> None:
    wanted = {cid.multihash for cid, _ in walk_blocks(case.source.blocks, case.root)}
    blocks = VerifyingReader(case.fetcher, timeout_seconds=5).get_dag(case.root, Deadline.after(5))
    assert {cid.multihash for cid, _ in blocks} == wanted


def test_the_scope_block_is_the_root_alone(case: Case) -> None:
    blocks = VerifyingReader(case.fetcher, timeout_seconds=5).get_dag(case.root, Deadline.after(5), scope="block")
    assert [cid for cid, _ in blocks] == [case.root]
