"""Completeness: is every block of a DAG here? Nodes are read, leaves are only asked for."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.links import LEAF_CODECS, links
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader

_NODES: Final = 32  # read at a time; each may link to thousands of others
_LEAVES: Final = 500  # asked for at a time


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
    stack, leaves = [root], list[CID]()
    while stack or leaves:
        if len(leaves) >= _LEAVES or not stack:
            missing = reader.find_absent(leaves)
            if missing is not None:
                return missing
            leaves.clear()
            continue
        nodes: list[CID] = []
        while stack and len(nodes) < _NODES:
            cid = stack.pop()
            if cid.codec in LEAF_CODECS:
                leaves.append(cid)
            elif seen.add(cid):
                nodes.append(cid)
        missing = _read_links(reader, nodes, stack)
        if missing is not None:
            return missing
    return None


def _read_links(reader: BlockReader, nodes: Sequence[CID], stack: list[CID]) -> CID | None:
    """Put what nodes link to on the stack. Returns the first node that is missing."""
    position = 0
    with closing(reader.get_many(nodes)) as blocks:
        try:
            for block in blocks:
                stack.extend(links(nodes[position], block))
                position += 1
        except NotFoundError:
            return nodes[position]
    return None


def check_complete(reader: BlockReader, root: CID, *, seen: SeenBlocks | None = None) -> None:
    """Check that every block below a root is here. Takes what ``find_missing`` takes.

    Raises:
        NotFoundError: one is not.
        InvalidDataError: a block whose links cannot be known.
    """
    missing = find_missing(reader, root, seen=seen)
    if missing is not None:
        raise missing_block(root, missing)


def missing_block(root: CID, missing: CID) -> NotFoundError:
    """Return the error of a DAG that lacks a block."""
    return NotFoundError(f"{root} is not complete here: the block {missing} is missing{missing.hash_hint}")
