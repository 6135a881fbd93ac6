"""Mark phase of garbage collection, shared by all storages: visits the blocks that the roots need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS, links
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID


def mark(reader: BlockReader, roots: Iterable[CID], visit: Callable[[CID], bool]) -> None:
    """Visit every block below the roots.

    Args:
        reader: the source of the nodes.
        roots: the CIDs to start from.
        visit: called for a block once per link to it; returns whether to follow the links of the block.

    Raises:
        IntegrityError: a node is missing or damaged, so the blocks that it needs are unknown.
    """
    stack = [(root, root) for root in roots]
    while stack:
        cid, root = stack.pop()
        if visit(cid) and cid.codec in CODECS_WITH_LINKS:
            stack.extend((child, root) for child in links_of_node(cid, read_node(reader, cid, root)))


def read_node(reader: BlockReader, cid: CID, root: CID) -> bytes:
    """Return the bytes of a node below a root.

    Raises:
        IntegrityError: the node is missing or damaged, so the blocks that it needs are unknown.
    """
    try:
        return reader.get(cid)
    except (NotFoundError, IntegrityError) as error:
        msg = (
            f"the node {cid} of {root} cannot be read, so the blocks that it needs are unknown and nothing was changed. "
            f"Add that content again or remove its pin ({error})"
        )
        raise IntegrityError(msg) from error


def links_of_node(cid: CID, block: bytes) -> Iterable[CID]:
    """Return the links of a block that matches its CID. A malformed node has no links."""
    try:
        return links(cid, block)
    except InvalidDataError:
        return ()  # the bytes match the CID, so they are not damaged: they were added as they are
