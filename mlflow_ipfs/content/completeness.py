"""Completeness: is every block of a DAG here? Nodes are read, leaves are only asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.codecs import LEAF_CODECS, links
from mlflow_ipfs.content.seen_blocks import SeenBlocks
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.cid import CID


def find_missing(reader: BlockReader, root: CID, *, seen: SeenBlocks | None = None) -> CID | None:
    """The first block below a root that the reader does not have, or None if the DAG is whole.

    Interior blocks are read; leaves are only asked for. Only what may link to others is remembered, at most 48 bytes
    each: leaves, nearly all blocks of a large DAG, are not, and one that is linked to twice is asked for twice.

    Args:
        reader: where the blocks are.
        root: the DAG.
        seen: what need not be looked at again, of an earlier call with the same reader.

    Raises:
        InvalidDataError: a block whose links cannot be known.
    """
    seen = SeenBlocks() if seen is None else seen
    stack = [root]
    while stack:
        cid = stack.pop()
        is_leaf = cid.codec in LEAF_CODECS
        if not is_leaf and not seen.add(cid):
            continue
        if not reader.has(cid):
            return cid
        try:
            stack.extend(() if is_leaf else links(cid, reader.get(cid)))
        except NotFoundError:
            return cid
    return None


def check_complete(reader: BlockReader, root: CID, *, seen: SeenBlocks | None = None) -> None:
    """Check that every block below a root is here. Takes what ``find_missing`` takes.

    Raises:
        NotFoundError: one is not.
        InvalidDataError: a block whose links cannot be known.
    """
    missing = find_missing(reader, root, seen=seen)
    if missing is not None:
        msg = f"{root} is not complete here: the block {missing} is missing{missing.hash_note}"
        raise NotFoundError(msg)
