"""Check that every block of a DAG is stored, without reading the leaves."""

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

_NODE_BATCH: Final = 32  # nodes read at a time; each may have thousands of links
_LEAF_BATCH: Final = 500  # leaves whose presence is checked at a time


def find_missing(reader: BlockReader, root: CID, *, seen: SeenBlocks | None = None) -> CID | None:
    """Return the first missing block of a DAG, or None if the DAG is complete.

    Nodes are read. For leaves, only their presence is checked. Only nodes are remembered, with at most 48 bytes each.
    Leaves are nearly all blocks of a large DAG and are not remembered, so a leaf that is linked twice is checked twice.

    Args:
        reader: source of the blocks.
        root: root of the DAG.
        seen: nodes that an earlier call with the same reader has checked and that are skipped.

    Raises:
        InvalidDataError: the links of a block cannot be decoded.
    """
    seen = SeenBlocks() if seen is None else seen
    stack, leaves = [root], list[CID]()
    while stack or leaves:
        if len(leaves) >= _LEAF_BATCH or not stack:
            missing = reader.find_absent(leaves)
            if missing is not None:
                return missing
            leaves.clear()
            continue
        nodes: list[CID] = []
        while stack and len(nodes) < _NODE_BATCH and len(leaves) < _LEAF_BATCH:
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
    """Push the links of nodes onto the stack. Return the first missing node, or None."""
    position = 0
    with closing(reader.get_many(nodes)) as blocks:
        try:
            for block in blocks:
                # Identity leaves contain their data. A hostile node has 250,000 of them.
                stack.extend(
                    link
                    for link in links(nodes[position], block)
                    if link.codec not in LEAF_CODECS or link.identity_data is None
                )
                position += 1
        except NotFoundError:
            return nodes[position]
    return None


def check_complete(reader: BlockReader, root: CID, *, seen: SeenBlocks | None = None) -> None:
    """Raise if a block of a DAG is missing.

    Args:
        reader: source of the blocks.
        root: root of the DAG.
        seen: nodes that an earlier call with the same reader has checked and that are skipped.

    Raises:
        NotFoundError: a block is missing.
        InvalidDataError: the links of a block cannot be decoded.
    """
    missing = find_missing(reader, root, seen=seen)
    if missing is not None:
        raise missing_block(root, missing)


def missing_block(root: CID, missing: CID) -> NotFoundError:
    """Return the error for a DAG with a missing block."""
    hint = missing.hash_hint or "; import or fetch the content again"
    return NotFoundError(f"{root} is incomplete: the block {missing} is missing{hint}")
