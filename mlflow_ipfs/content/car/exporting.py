"""Export of a DAG to a stream as a CARv1.

The same DAG always gives the same bytes, so an interrupted export can be resumed.
"""

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
    """Write every block of a DAG as a CARv1.

    Identity CIDs contain their data, so their blocks are omitted.

    Args:
        reader: source of the blocks.
        root: root of the DAG.
        file: stream that the CAR is written to.
        skip_bytes: number of bytes at the start of the CAR that are not written because the receiver has them. Leaves
            in this range are not read if the reader knows their size. Nodes are always read, because their links
            determine the blocks that follow.
        progress: called with the length of each block in bytes.

    Returns:
        The size of the whole CAR in bytes.

    Raises:
        NotFoundError, IntegrityError: a block is missing or damaged.
        InvalidDataError: the links of a block cannot be decoded, or the whole CAR is shorter than ``skip_bytes``.
    """
    out = _SkippingWriter(file, skip_bytes)
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
        msg = (
            f"the CAR of {root} has {out.size_bytes} bytes, so it cannot be resumed at byte {skip_bytes}: "
            "start at an earlier byte"
        )
        raise InvalidDataError(msg)
    return out.size_bytes


class _SkippingWriter:
    """Writer that discards the first bytes of a CAR and passes the rest to a file."""

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
        while view:  # an unbuffered file may write only part of the data
            written = self._file.write(view)
            view = view[written:]
            self.size_bytes += written


def _skip_leaf(reader: BlockReader, cid: CID, out: _SkippingWriter) -> int | None:
    """Skip a leaf that need not be written. Return its length, or None if the leaf must be read."""
    if not out.left_to_skip or cid.codec != RAW or cid.identity_data is not None:
        return None
    length = reader.get_size(cid)
    size_bytes = car_block_size(cid, length)
    if size_bytes > out.left_to_skip:
        return None
    out.skip(size_bytes)
    return length
