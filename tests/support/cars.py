"""CARs made block by block, with any roots and blocks in any order, as other programs may make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.car.format import encode_car_block, encode_car_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow_ipfs.content.cid import CID


def write_car(file: BinaryIO, roots: Sequence[CID], blocks: Iterable[tuple[CID, bytes]]) -> int:
    """Write a CAR. Return its size in bytes. Identity CIDs contain their data, so their blocks are omitted."""
    size = file.write(encode_car_header(roots))
    for cid, block in blocks:
        if cid.identity_data is None:
            size += file.write(encode_car_block(cid, block))
    return size
