"""How much of the store is needed by whom? Lengths and owners of all blocks in two arrays: 12 bytes a block."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.reading.marks import Marker
from mlflow_ipfs.content.storage.maintenance import Usage, UsageReport

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_NOBODY: Final = -1
_SEVERAL: Final = -2


def measure_usage(context: StoreContext, reader: BlockReader, groups: Sequence[Sequence[CID]]) -> UsageReport:
    """Add up what lies below each group of roots, from one snapshot.

    Raises:
        IntegrityError: a node cannot be read.
    """
    with context.database.snapshot() as connection:
        lengths = _read_lengths(connection)
        owners = array("i", [_NOBODY]) * len(lengths)
        totals = [0] * len(groups)
        for group, roots in enumerate(groups):
            with Marker(context.layout, context.disk, reader) as marks:
                marks.take_fresh()
                marks.mark(connection, roots)
                for block_id in marks.take_fresh():
                    totals[group] += lengths[block_id]
                    owners[block_id] = group if owners[block_id] == _NOBODY else _SEVERAL
    own = dict.fromkeys((*range(len(groups)), _NOBODY, _SEVERAL), 0)
    for length, owner in zip(lengths, owners, strict=True):
        own[owner] += length
    usages = tuple(Usage(total, own[group]) for group, total in enumerate(totals))
    return UsageReport(usages, sum(lengths), own[_NOBODY])


def _read_lengths(connection: sqlite3.Connection) -> array[int]:
    """Of each block, by the id of its row; 0 where there is none."""
    last: int = connection.execute("SELECT coalesce(max(id), 0) FROM block").fetchone()[0]
    lengths: array[int] = array("q", [0]) * (last + 1)
    for block_id, length in connection.execute("SELECT id, length FROM block"):
        lengths[block_id] = length
    return lengths
