from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.blocks.fetcher import Deadline
from mlflow_ipfs.content.blocks.verifying import VerifyingReader
from mlflow_ipfs.content.cid import CID, DAG_CBOR, IDENTITY, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError, RemoteError
from support.fetchers import MemoryFetcher
from support.storages import publish_blocks, publish_file, put_block

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow_ipfs.content.blocks.fetcher import DagScope


@pytest.fixture
def source() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def fetcher(source: MemoryStorage) -> MemoryFetcher:
    return MemoryFetcher(source.blocks)


def test_other_bytes_are_refused_and_the_source_is_named(source: MemoryStorage, fetcher: MemoryFetcher) -> None:
    [cid] = publish_blocks(source, b"right")
    reader = VerifyingReader(fetcher, timeout_seconds=1)
    assert reader.get(cid) == b"right"
    fetcher.replaced[cid] = b"wrong"
    with pytest.raises(IntegrityError, match=rf"memory://source .*{cid}"):
        reader.get(cid)


def test_a_block_beyond_the_limit_is_refused_even_if_it_hashes_right(fetcher: MemoryFetcher) -> None:
    data = bytes(MAX_BLOCK_BYTES + 1)
    cid = CID.of(data)
    fetcher.replaced[cid] = data
    with pytest.raises(IntegrityError, match="more than"):
        VerifyingReader(fetcher, timeout_seconds=1).get(cid)


def test_identity_cids_need_no_source(fetcher: MemoryFetcher) -> None:
    fetcher.is_away = True
    cid = CID(1, RAW, bytes((IDENTITY, 5)) + b"hello")
    reader = VerifyingReader(fetcher, timeout_seconds=1)
    assert reader.has(cid)
    assert reader.get(cid) == b"hello"
    assert list(reader.get_dag(cid, Deadline.after(1))) == []


def test_absent_is_not_unreachable(source: MemoryStorage, fetcher: MemoryFetcher) -> None:
    [cid] = publish_blocks(source, b"here")
    reader = VerifyingReader(fetcher, timeout_seconds=1)
    assert reader.has(cid)
    assert not reader.has(CID.of(b"absent"))
    fetcher.is_away = True
    with pytest.raises(RemoteError):
        reader.has(cid)


class Sends(MemoryFetcher):
    """Sends the blocks that it is told to."""

    def __init__(self, blocks: list[tuple[CID, bytes]]) -> None:
        super().__init__(MemoryStorage().blocks)
        self._sent = blocks

    def fetch_dag(
        self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
    ) -> Generator[tuple[CID, bytes], None, None]:
        del root, deadline, scope
        yield from self._sent


LEAVES = [(CID.of(data), data) for data in (b"first", b"second")]
NODE = encode_dagcbor([cid for cid, _ in LEAVES])
ROOT = CID.of(NODE, DAG_CBOR)


def dag_of(blocks: list[tuple[CID, bytes]]) -> list[tuple[CID, bytes]]:
    return list(VerifyingReader(Sends(blocks), timeout_seconds=1).get_dag(ROOT, Deadline.after(1)))


def test_a_dag_is_accepted_in_any_order_below_its_nodes_and_repetitions_are_left_out() -> None:
    assert dag_of([(ROOT, NODE), LEAVES[1], LEAVES[1], LEAVES[0], (ROOT, NODE)]) == [(ROOT, NODE), LEAVES[1], LEAVES[0]]


def test_a_block_that_no_node_links_to_is_refused() -> None:
    junk = CID.of(b"junk")
    with pytest.raises(IntegrityError, match=f"{junk}, which is not part of {ROOT}"):
        dag_of([(ROOT, NODE), (junk, b"junk")])
    with pytest.raises(IntegrityError, match="not part of"):
        dag_of([LEAVES[0], (ROOT, NODE)])


def test_a_dag_that_ends_early_is_an_error_that_may_pass() -> None:
    with pytest.raises(RemoteError, match=str(LEAVES[1][0])) as caught:
        dag_of([(ROOT, NODE), LEAVES[0]])
    assert caught.value.transient


def test_a_wrong_block_of_a_dag_is_refused() -> None:
    with pytest.raises(IntegrityError, match=str(LEAVES[0][0])):
        dag_of([(ROOT, NODE), (LEAVES[0][0], b"other")])


def test_a_node_that_is_no_node_is_malformed() -> None:
    cid = CID.of(b"\xff", DAG_CBOR)
    fetcher = Sends([(cid, b"\xff")])
    with pytest.raises(InvalidDataError, match=str(cid)):
        list(VerifyingReader(fetcher, timeout_seconds=1).get_dag(cid, Deadline.after(1)))


def test_an_absent_root_is_not_found(source: MemoryStorage, fetcher: MemoryFetcher) -> None:
    root = publish_file(source, bytes(5000))
    put_block(source, *LEAVES[0])
    reader = VerifyingReader(fetcher, timeout_seconds=1)
    assert next(iter(reader.get_dag(root, Deadline.after(1))))[0] == root
    with pytest.raises(NotFoundError):
        list(reader.get_dag(ROOT, Deadline.after(1)))


def test_a_source_that_repeats_itself_for_ever_is_ended_by_the_deadline() -> None:
    class Endless(Sends):
        def fetch_dag(
            self, root: CID, deadline: Deadline, *, scope: DagScope = "all"
        ) -> Generator[tuple[CID, bytes], None, None]:
            del root, deadline, scope
            while True:
                yield ROOT, NODE

    with pytest.raises(RemoteError, match=r"within 0\.1 s"):
        list(VerifyingReader(Endless([]), timeout_seconds=1).get_dag(ROOT, Deadline.after(0.1)))
