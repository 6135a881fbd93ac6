"""Readers for callers that must not wait."""

from __future__ import annotations

import pytest

from mlflow_ipfs.content.blocks.limited import LimitedReader, ReadLimitError
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.storage.memory import MemoryStorage
from support.storages import put_block

LARGE = b"x" * 1000


def test_it_reads_up_to_its_limit_and_leaves_do_not_count() -> None:
    storage = MemoryStorage()
    node, leaf = CID.of(LARGE, DAG_PB), CID.of(LARGE)
    put_block(storage, leaf, LARGE)
    reader = LimitedReader(storage.blocks, 2000)
    for _ in range(5):
        assert reader.get(leaf) == LARGE
    assert reader.get(node) == reader.get(node) == LARGE
    assert reader.has(node)
    with pytest.raises(ReadLimitError, match=str(node)):
        reader.get(node)
