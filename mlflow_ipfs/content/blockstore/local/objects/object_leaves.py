"""The leaves of a file, in order, as the nodes above them have them: what an object must consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.blockstore.interface import Leaf, LeafForm
from mlflow_ipfs.content.blockstore.local import index
from mlflow_ipfs.content.cid import DAG_PB
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.file_reader import check_parts, part_bounds
from mlflow_ipfs.content.unixfs import encode_leaf
from mlflow_ipfs.errors import InvalidDataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.blockstore.local.database import Database
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.dag import UnixFSNode


def iterate_leaves(database: Database, reader: BlockReader, root: CID, size_bytes: int) -> Iterator[Leaf]:
    """The leaves of a file. Only nodes are read, and leaves whose form the index does not tell.

    Args:
        database: says of a leaf in an object how its block is made.
        reader: reads the nodes.
        root: the file.
        size_bytes: its size.

    Raises:
        NotFoundError: a node, or the row of a leaf, is not in the store.
        InvalidDataError: the file is not of the kind that an object can be.
    """
    offset = visits = 0
    stack = [(root, size_bytes)]
    while stack:
        cid, length = stack.pop()
        visits += 1  # nodes that hold 0 bytes count, too: shared ones can be visited 2**60 times
        check_parts(root, visits, size_bytes)
        form = _form_by_index(database, cid)
        if form is None:
            node = read_unixfs(reader, cid)
            if _is_wrapped_leaf(node):
                form = LeafForm.UNIXFS_FILE
            else:
                parts = _parts_of(node, root)
                if cid != root and length != sum(size for _, size in parts):
                    msg = f"the node {cid} of the file {root} holds another number of bytes than the node above it says"
                    raise InvalidDataError(msg)
                stack.extend(reversed(parts))
                continue
        yield Leaf(cid, offset, length, form)
        offset += length


def _form_by_index(database: Database, cid: CID) -> LeafForm | None:
    """How a leaf is made from the file's bytes; None where its block has to be looked at."""
    if cid.codec != DAG_PB:
        return LeafForm.RAW
    with database.read() as connection:
        row = index.find_block(connection, cid.multihash)
    if row is None:
        msg = f"the block {cid} is not in the store"
        raise NotFoundError(msg)
    return LeafForm.UNIXFS_FILE if row.form is LeafForm.UNIXFS_FILE else None


def _is_wrapped_leaf(node: UnixFSNode) -> bool:
    """Whether a block is the plain wrapping of a piece of a file. It lies in a pack whole, as any small block."""
    return not node.links and node.data.is_file and node.block == encode_leaf(node.data.data or b"")


def _parts_of(node: UnixFSNode, root: CID) -> list[tuple[CID, int]]:
    if node.data.data or not node.data.is_file:
        msg = f"the node {node.cid} of the file {root} holds bytes of its own, so it has no object"
        raise InvalidDataError(msg)
    part_bounds(node.cid, node.data)  # checks them
    return list(zip([link.cid for link in node.links], node.data.block_sizes, strict=True))
