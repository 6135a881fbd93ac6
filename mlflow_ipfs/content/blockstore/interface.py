"""Former place of the interfaces."""

from collections.abc import Generator, Sequence

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES, MAX_LEAF_BYTES, BlockReader, Leaf, LeafForm
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.kinds import NameKind, Root
from mlflow_ipfs.content.storage.base import DEFAULT_CACHE_BYTES, Changes, FileWriter, Hold, Publication, Storage
from mlflow_ipfs.content.storage.maintenance import (
    MAX_DAMAGED_NAMED,
    Affected,
    AffectedReport,
    GCReport,
    ScrubReport,
    Usage,
    UsageReport,
)

SizedBlockReader = BlockReader


def get_many(reader: BlockReader, cids: Sequence[CID]) -> Generator[bytes, None, None]:
    """Former function."""
    return reader.get_many(cids)


def find_absent(reader: BlockReader, cids: Sequence[CID]) -> CID | None:
    """Former function."""
    return reader.find_absent(cids)


__all__ = [
    "DEFAULT_CACHE_BYTES",
    "MAX_BLOCK_BYTES",
    "MAX_DAMAGED_NAMED",
    "MAX_LEAF_BYTES",
    "Affected",
    "AffectedReport",
    "BlockReader",
    "Changes",
    "FileWriter",
    "GCReport",
    "Hold",
    "Leaf",
    "LeafForm",
    "NameKind",
    "Publication",
    "Root",
    "ScrubReport",
    "SizedBlockReader",
    "Storage",
    "Usage",
    "UsageReport",
    "find_absent",
    "get_many",
]  # fmt: skip
