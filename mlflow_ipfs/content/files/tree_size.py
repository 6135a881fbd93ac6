"""Number of files and directories that a DAG has when it is written to disk.

Directories may share subdirectories, as snapshots of one tree do. A few blocks that share each other twice at every
level stand for 2**60 files, so this number has a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.cid import RAW
from mlflow_ipfs.content.dag import iterate_directory, read_unixfs
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.dag import UnixFSNode

# Directories that are there once have no limit: all their names are in blocks of the store. 4,000 snapshots that share
# a tree of 5,000 files are below it.
MAX_REPEATED_ENTRIES: Final = 20_000_000


class TreeSize(NamedTuple):
    """Number of entries below a directory.

    Attributes:
        written: entries on disk, where a shared directory is written for each path to it.
        stored: entries in the blocks, where a shared directory counts once.
    """

    written: int
    stored: int


def check_tree_size(root: CID, size: TreeSize) -> None:
    """Check that shared directories do not make a tree too large to be written to disk.

    Raises:
        InvalidDataError: they do.
    """
    repeated = size.written - size.stored
    if repeated > MAX_REPEATED_ENTRIES:
        msg = (
            f"{root} would be {_text(size.written)} files and directories on disk, because directories with "
            f"{size.stored} entries in all occur in it many times; the limit is {MAX_REPEATED_ENTRIES} repeated "
            "entries. Write single subdirectories of it"
        )
        raise InvalidDataError(msg)


def _text(count: int) -> str:
    """Return a number; in short if it has hundreds of digits."""
    return str(count) if count < 10**30 else f"more than 10**{(count.bit_length() - 1) * 3 // 10}"


class _Directory:
    """A directory whose entries are being counted."""

    def __init__(self, reader: BlockReader, node: UnixFSNode) -> None:
        self.cid = node.cid
        entries = [link.cid for link in iterate_directory(reader, node)]
        self.stored = self.written = len(entries)
        self.waiting = [cid for cid in entries if cid.codec != RAW]


def measure_tree(reader: BlockReader, root: UnixFSNode) -> TreeSize:
    """Count the entries below a directory. Reads each of its nodes once, however often it occurs.

    Raises:
        NotFoundError, IntegrityError: a node cannot be read.
        InvalidDataError: a node is not UnixFS, or a directory is malformed.
    """
    written: dict[CID, int] = {}
    others = SeenBlocks()
    path = [_Directory(reader, root)]
    stored = path[0].stored
    while True:
        current = path[-1]
        if not current.waiting:
            written[current.cid] = current.written
            path.pop()
            if not path:
                return TreeSize(current.written, stored)
            path[-1].written += current.written
            continue
        cid = current.waiting.pop()
        if cid in written:
            current.written += written[cid]
        elif others.add(cid):
            node = read_unixfs(reader, cid)
            if node.data.is_directory:
                path.append(_Directory(reader, node))
                stored += path[-1].stored
