"""Reading a UnixFS file as a seekable stream, each block verified before a byte of it is handed on."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import MAX_FILE_DEPTH, UnixFSNode, read_unixfs
from mlflow_ipfs.errors import InvalidDataError, IsDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.codecs.unixfs import UnixFSData

MAX_FILE_BYTES: Final = (1 << 63) - 1  # the largest offset that a file can have on any system
MAX_EMPTY_PARTS: Final = 1024  # of one node; importers write none, and each would take time without giving a byte
_FREE_PARTS: Final = 4 << 20  # a file may have that many parts, however small
_MEAN_PART_BYTES: Final = 256  # and further ones if they have that size on average
_BUFFER_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class _Span:
    """A node on the way down to a leaf.

    ``bounds[i]`` is where in the file part ``i`` of the node starts; part 0 is the node's own
    bytes, part ``i`` its ``i``-th link; the last bound is the node's end.
    """

    node: UnixFSNode
    bounds: list[int]

    @property
    def start(self) -> int:
        return self.bounds[0]

    @property
    def end(self) -> int:
        return self.bounds[-1]

    @property
    def own_bytes(self) -> bytes:
        return self.node.data.data or b""


def _span(node: UnixFSNode, start: int) -> _Span:
    if not node.data.is_file:
        msg = f"{node.cid} is a {node.data.type.name.lower()}, not a file"
        raise IsDirectoryError(msg) if node.data.is_directory else InvalidDataError(msg)
    return _Span(node, part_bounds(node.cid, node.data, start))


def part_bounds(cid: CID, data: UnixFSData, start: int = 0) -> list[int]:
    """Where the parts of a file node begin: its own bytes, then each link; and where the last one ends.

    Raises:
        InvalidDataError: the sizes of the parts do not add up to the size that the node states, or exceed a limit.
    """
    bounds = list(accumulate([len(data.data or b""), *data.block_sizes], initial=start))
    size_bytes = bounds[-1] - start
    if bounds[-1] > MAX_FILE_BYTES:
        msg = f"the file node {cid} states a size of {size_bytes} bytes, and no file can have over {MAX_FILE_BYTES}"
        raise InvalidDataError(msg)
    empty = data.block_sizes.count(0)
    if empty > MAX_EMPTY_PARTS:
        msg = f"the file node {cid} has {empty} parts of 0 bytes, and at most {MAX_EMPTY_PARTS} are read"
        raise InvalidDataError(msg)
    if data.size_bytes not in (None, size_bytes):
        msg = f"the file node {cid} states {data.size_bytes} bytes, and its parts have {size_bytes}"
        raise InvalidDataError(msg)
    return bounds


def max_parts(size_bytes: int) -> int:
    """Return how many leaves a file of that size may have, each counted as often as it occurs."""
    return _FREE_PARTS + size_bytes // _MEAN_PART_BYTES


def check_parts(cid: CID, parts: int, size_bytes: int) -> None:
    """Check how many leaves a file has, each counted as often as it occurs.

    A block may occur in a file any number of times, so a few small blocks can make a file of 2**60 parts. Real files
    made of few blocks, such as disk images full of zeros, have large ones.

    Raises:
        InvalidDataError: the file has more parts than any real file of that size.
    """
    limit = max_parts(size_bytes)
    if parts > limit:
        msg = f"the file {cid} of {size_bytes} bytes has more than {limit} parts, too many small ones to be read as a whole"
        raise InvalidDataError(msg)


class UnixFSFile(io.RawIOBase):
    """A UnixFS file, read block by block from a blockstore. Not for sharing between threads.

    Args:
        reader: where the blocks are.
        root: the file, or its node if that has been read.

    Raises:
        IsDirectoryError: the CID names a directory.
        InvalidDataError: the nodes of the file contradict each other.
        NotFoundError, IntegrityError: while reading, when a block is missing or damaged.
    """

    def __init__(self, reader: BlockReader, root: CID | UnixFSNode) -> None:
        super().__init__()
        self._reader = reader
        self._path = [_span(read_unixfs(reader, root) if isinstance(root, CID) else root, 0)]
        self._position = 0

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self._path[0].end

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; reads nothing. Positions after the end are allowed and read nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}.get(whence)
        if base is None:
            msg = f"whence must be 0, 1 or 2, not {whence}"
            raise ValueError(msg)
        if base + offset < 0:
            msg = f"cannot seek to {base + offset}, before the start of the file"
            raise ValueError(msg)
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read at most one leaf's bytes."""
        view = memoryview(buffer).cast("B")
        if self._position >= self.size_bytes or not len(view):
            return 0
        piece = self._piece_at(self._position)[: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the rest of the file, a leaf at a time, without copying.

        Raises:
            InvalidDataError: there are more leaves than any real file of that size has.
        """
        parts = 0
        while self._position < self.size_bytes:
            piece = self._piece_at(self._position)
            self._position += len(piece)
            parts += 1
            if parts > _FREE_PARTS:
                check_parts(self._path[0].node.cid, parts, self.size_bytes)
            yield piece

    def _piece_at(self, position: int) -> memoryview:
        """The bytes from ``position`` to the end of the leaf that holds it."""
        while not self._path[-1].start <= position < self._path[-1].end:
            self._path.pop()
        while True:
            span = self._path[-1]
            part = bisect_right(span.bounds, position) - 1
            if part == 0:
                return memoryview(span.own_bytes)[position - span.start :]
            self._path.append(self._child(span, part))

    def _child(self, span: _Span, part: int) -> _Span:
        if len(self._path) >= MAX_FILE_DEPTH:
            msg = f"the file {self._path[0].node.cid} has more than {MAX_FILE_DEPTH} levels"
            raise InvalidDataError(msg)
        link = span.node.links[part - 1]
        start, end = span.bounds[part], span.bounds[part + 1]
        child = _span(read_unixfs(self._reader, link.cid), start)
        if child.end != end:
            msg = f"{span.node.cid} states {end - start} bytes for its part {link.cid}, which has {child.end - start}"
            raise InvalidDataError(msg)
        return child


def open_unixfs(reader: BlockReader, cid: CID) -> io.BufferedReader:
    """Open a file for buffered, seekable, verified reading."""
    return io.BufferedReader(UnixFSFile(reader, cid), _BUFFER_BYTES)
