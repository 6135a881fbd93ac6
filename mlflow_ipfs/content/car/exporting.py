"""A DAG as a CARv1, written to a stream. The same DAG always gives the same bytes, so half a CAR can be continued."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.car.format import car_block_size, encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.dag import DagWalk
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_ipfs.content.blocks.base import BlockReader


def export_car(
    reader: BlockReader,
    root: CID,
    file: BinaryIO,
    *,
    skip_bytes: int = 0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write everything below a CID as a CARv1. Identity CIDs carry their bytes and are left out.

    Args:
        reader: where the blocks are.
        root: the root.
        file: takes the CAR.
        skip_bytes: how many bytes at the CAR's start are not written, because somebody has them. Leaves that lie there
            are not even read where the reader knows their size; nodes must be, since they say what comes next.
        progress: called with the length of each block.

    Returns:
        The size of the whole CAR in bytes.

    Raises:
        NotFoundError, IntegrityError: a block cannot be had.
        InvalidDataError: a block whose links cannot be known, or the whole CAR has fewer than ``skip_bytes``.
    """
    out = _Tail(file, skip_bytes)
    out.write(encode_car_header([root]))
    walk = DagWalk(root)
    for cid in walk:
        length = _skip_leaf(reader, cid, out)
        if length is None:
            block = reader.get(cid)
            walk.descend(cid, block)
            if cid.identity_data is None:
                out.write(encode_car_block(cid, block))
            length = len(block)
        if progress is not None:
            progress(length)
    if out.size_bytes < skip_bytes:
        msg = f"the CAR of {root} has {out.size_bytes} bytes, so it does not go on at byte {skip_bytes}"
        raise InvalidDataError(msg)
    return out.size_bytes


class _Tail:
    """What stands behind the first bytes of a CAR goes to a file."""

    def __init__(self, file: BinaryIO, skip_bytes: int) -> None:
        self._file = file
        self.left_to_skip = skip_bytes
        self.size_bytes = 0

    def skip(self, size_bytes: int) -> None:
        self.left_to_skip -= size_bytes
        self.size_bytes += size_bytes

    def write(self, data: bytes) -> None:
        skipped = min(self.left_to_skip, len(data))
        self.skip(skipped)
        view = memoryview(data)[skipped:]
        while view:  # a file without a buffer may take less than it is given
            written = self._file.write(view)
            view = view[written:]
            self.size_bytes += written


def _skip_leaf(reader: BlockReader, cid: CID, out: _Tail) -> int | None:
    """Pass over a leaf that need not be written; returns its length, or None if it has to be read."""
    if not out.left_to_skip or cid.codec != RAW or cid.identity_data is not None:
        return None
    length = reader.get_size(cid)
    size_bytes = car_block_size(cid, length)
    if size_bytes > out.left_to_skip:
        return None
    out.skip(size_bytes)
    return length
