"""Which blocks do the roots need? Shared by the storages that collect garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS, links
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID


def mark(reader: BlockReader, roots: Iterable[CID], keep: Callable[[CID], bool]) -> None:
    """Visit every block below the roots.

    Args:
        reader: where the nodes are.
        roots: where to start.
        keep: told of each block once for every way to it; returns whether its links, too, are to be followed.

    Raises:
        IntegrityError: a node is missing or damaged, so nobody can say what it needs.
    """
    stack = [(root, root) for root in roots]
    while stack:
        cid, root = stack.pop()
        if keep(cid) and cid.codec in CODECS_WITH_LINKS:
            stack.extend((child, root) for child in links_of_node(cid, read_node(reader, cid, root)))


def read_node(reader: BlockReader, cid: CID, root: CID) -> bytes:
    """Read a node below a root.

    Raises:
        IntegrityError: it is missing or damaged, so nobody can say what it needs.
    """
    try:
        return reader.get(cid)
    except (NotFoundError, IntegrityError) as error:
        msg = (
            f"nothing was done: the node {cid} of {root} cannot be read, so it is not known what it needs. "
            f"Add that content again or remove its pin ({error})"
        )
        raise IntegrityError(msg) from error


def links_of_node(cid: CID, block: bytes) -> Iterable[CID]:
    """What a block needs that has its CID and may be a node."""
    try:
        return links(cid, block)
    except InvalidDataError:
        return ()  # bytes that only claim to be a node; they have their CID, so no damage made them so
