"""CARs made block by block, with any roots and blocks in any order, as other programs may make them."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.car.format import encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID, DAG_CBOR, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from support.storages import put_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def write_car(file: BinaryIO, roots: Sequence[CID], blocks: Iterable[tuple[CID, bytes]]) -> int:
    """Write a CAR. Return its size in bytes. Identity CIDs contain their data, so their blocks are omitted."""
    size = file.write(encode_car_header(roots))
    for cid, block in blocks:
        if cid.identity_data is None:
            size += file.write(encode_car_block(cid, block))
    return size


IDENTITY_CID = CID(1, RAW, b"\0\x02hi")


@functools.cache
def sample() -> tuple[CID, bytes, dict[CID, bytes]]:
    """A small DAG of every kind of block, its CAR of 1,0xx bytes, and its blocks."""
    leaves = [CID.of(bytes((number,)) * 90) for number in range(5)]
    blocks = {cid: bytes((number,)) * 90 for number, cid in enumerate(leaves)}
    inner = encode_dagcbor([*leaves[:3], IDENTITY_CID, leaves[0]])
    other = encode_dagcbor([leaves[4], leaves[3]])
    blocks |= {CID.of(inner, DAG_CBOR): inner, CID.of(other, DAG_CBOR): other}
    top = encode_dagcbor([CID.of(inner, DAG_CBOR), CID.of(other, DAG_CBOR), leaves[1]])
    root = CID.of(top, DAG_CBOR)
    blocks[root] = top
    with ContentStore(MemoryStorage()) as store:
        put_blocks(store.storage, blocks.items())
        stream = io.BytesIO()
        store.export_car(root, stream)
    return root, stream.getvalue(), blocks
