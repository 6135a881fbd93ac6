"""What every storage's blocks must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.cid import CID, DAG_PB, IDENTITY, RAW
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.errors import InvalidDataError, NotFoundError
from support.storages import multihashes, publish_file, put_block, put_blocks, raw

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage


@pytest.mark.parametrize("size_bytes", [0, 1, 1000, 64 << 10, (64 << 10) + 1, 1 << 20, MAX_BLOCK_BYTES])
def test_a_block_comes_back_as_it_was_put(storage: Storage, size_bytes: int) -> None:
    cid, data = raw(bytes(range(256)) * (size_bytes // 256) + bytes(size_bytes % 256))
    put_block(storage, cid, data)
    assert storage.blocks.get(cid) == data
    assert storage.blocks.has(cid)


def test_a_missing_block_is_not_found_and_named(storage: Storage) -> None:
    cid, _ = raw(b"never put")
    assert not storage.blocks.has(cid)
    with pytest.raises(NotFoundError, match=str(cid)):
        storage.blocks.get(cid)


def test_the_same_multihash_is_the_same_block(storage: Storage) -> None:
    cid, data = raw(b"one block")
    put_block(storage, cid, data)
    for other in (CID(1, DAG_PB, cid.multihash), CID(0, DAG_PB, cid.multihash)):
        assert storage.blocks.has(other)
        assert storage.blocks.get(other) == data


def test_a_block_beyond_the_limit_is_refused(storage: Storage) -> None:
    cid, data = raw(bytes(MAX_BLOCK_BYTES + 1))
    with pytest.raises(InvalidDataError, match=str(cid)):
        put_block(storage, cid, data)
    assert not storage.blocks.has(cid)


def test_identity_cids_are_always_here_and_never_kept(storage: Storage) -> None:
    cid = CID(1, RAW, bytes((IDENTITY, 5)) + b"hello")
    assert storage.blocks.has(cid)
    assert storage.blocks.get(cid) == b"hello"
    put_block(storage, cid, b"hello")
    assert list(multihashes(storage)) == []


def test_putting_twice_changes_nothing(storage: Storage) -> None:
    cid, data = raw(b"twice")
    put_block(storage, cid, data)
    put_block(storage, cid, data)
    assert list(multihashes(storage)) == [cid.multihash]


def test_multihashes_names_every_block_once(storage: Storage) -> None:
    blocks = [raw(number.to_bytes(4, "big") * 25) for number in range(12_345)]
    put_blocks(storage, blocks)
    found = list(multihashes(storage))
    assert len(found) == len(blocks)
    assert set(found) == {cid.multihash for cid, _ in blocks}


def test_many_come_as_one_after_the_other(storage: Storage) -> None:
    blocks = [raw(b"small %d" % number) for number in range(500)] + [raw(bytes([number]) * 70_000) for number in (1, 2)]
    put_blocks(storage, blocks)
    roots = [publish_file(storage, bytes(range(256)) * 20, wrapped=wrapped) for wrapped in (False, True)]
    cids = [cid for cid, _ in blocks] + [cid for root in roots for cid, _ in walk_blocks(storage.blocks, root)]
    cids += [CID(1, RAW, bytes((IDENTITY, 5)) + b"hello"), cids[0], cids[-1]]
    cids = cids[::3] + cids[1::3] + cids[2::3]
    assert list(storage.blocks.get_many(cids)) == [storage.blocks.get(cid) for cid in cids]
    assert list(storage.blocks.get_many([])) == []


def test_many_end_where_one_is_missing(storage: Storage) -> None:
    here, missing = raw(b"here"), raw(b"never put")
    put_block(storage, *here)
    blocks = storage.blocks.get_many([here[0], missing[0], here[0]])
    assert next(blocks) == b"here"
    with pytest.raises(NotFoundError, match=str(missing[0])):
        next(blocks)
