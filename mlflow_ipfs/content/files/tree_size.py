"""Number of files and directories that a DAG creates when it is written to disk.

Directories may share subdirectories, as snapshots of one tree do. If each of 60 directories links twice to the next,
these few blocks describe 2**60 files. So the number has a limit.
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

# Only repeats count: the names of a directory that occurs once are all in blocks of the store. 4,000 snapshots that
# share a tree of 5,000 files are within the limit.
MAX_REPEATED_ENTRIES: Final = 20_000_000


class TreeSize(NamedTuple):
    """Number of entries below a directory.

    Attributes:
        written: number of entries on disk, where a shared directory is written once for each path to it.
        stored: number of entries in the blocks, where a shared directory counts once.
    """

    written: int
    stored: int


def check_tree_size(root: CID, size: TreeSize) -> None:
    """Raise if shared directories make a tree too large to write to disk.

    Raises:
        InvalidDataError: the tree repeats more than ``MAX_REPEATED_ENTRIES`` entries.
    """
    repeated = size.written - size.stored
    if repeated > MAX_REPEATED_ENTRIES:
        msg = (
            f"{root} would be {_format_count(size.written)} files and directories on disk, because its directories "
            f"(with {size.stored} entries in total) occur many times. The limit is {MAX_REPEATED_ENTRIES} repeated "
            "entries; export single subdirectories instead"
        )
        raise InvalidDataError(msg)


def _format_count(count: int) -> str:
    """Return a number as text, abbreviated if it has more than 30 digits."""
    return str(count) if count < 10**30 else f"more than 10**{(count.bit_length() - 1) * 3 // 10}"


class _Directory:
    """A directory whose entries are being counted."""

    def __init__(self, reader: BlockReader, node: UnixFSNode) -> None:
        self.cid = node.cid
        entries = [link.cid for link in iterate_directory(reader, node)]
        self.stored = self.written = len(entries)
        self.pending = [cid for cid in entries if cid.codec != RAW]


def measure_tree(reader: BlockReader, root: UnixFSNode) -> TreeSize:
    """Count the entries below a directory. Each node is read once, however often it occurs.

    Raises:
        NotFoundError, IntegrityError: a node cannot be read.
        InvalidDataError: a node is not UnixFS, or a directory is malformed.
    """
    written: dict[CID, int] = {}
    seen_files = SeenBlocks()
    path = [_Directory(reader, root)]
    stored = path[0].stored
    while True:
        current = path[-1]
        if not current.pending:
            written[current.cid] = current.written
            path.pop()
            if not path:
                return TreeSize(current.written, stored)
            path[-1].written += current.written
            continue
        cid = current.pending.pop()
        if cid in written:
            current.written += written[cid]
        elif seen_files.add(cid):
            node = read_unixfs(reader, cid)
            if node.data.is_directory:
                path.append(_Directory(reader, node))
                stored += path[-1].stored
