"""A UnixFS file as a seekable stream. Each block is verified before any of its bytes is returned."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import MAX_FILE_DEPTH, UnixFSNode, decode_name, read_unixfs
from mlflow_ipfs.errors import InvalidDataError, IsDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.codecs.unixfs import UnixFSData

MAX_FILE_BYTES: Final = (1 << 63) - 1  # the largest file offset on any operating system
MAX_EMPTY_PARTS: Final = 1024  # of one node; importers write none, and each costs time but yields no byte
_FREE_PARTS: Final = 4 << 20  # parts that a file may have, whatever their size
_MEAN_PART_BYTES: Final = 256  # minimum mean size of the parts beyond these
_BUFFER_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class _Span:
    """A node on the path from the root to a leaf.

    ``bounds[i]`` is the offset in the file at which part ``i`` of the node starts. Part 0 is the node's own bytes, and
    part ``i`` is its ``i``-th link. The last bound is the end of the node.
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
    """Return the span of a node that starts at an offset in the file. Raise if the node is not a file node."""
    if not node.data.is_file:
        target = f" to {decode_name(node.data.data or b'')!r}" if node.data.type is NodeType.SYMLINK else ""
        msg = f"{node.cid} is a {node.data.type.name.lower()}{target}, not a file; name a file"
        raise IsDirectoryError(msg) if node.data.is_directory else InvalidDataError(msg)
    return _Span(node, part_bounds(node.cid, node.data, start))


def part_bounds(cid: CID, data: UnixFSData, start: int = 0) -> list[int]:
    """Return the offsets at which the parts of a file node start, and the offset at which the last part ends.

    The first part is the node's own bytes. Each link is a further part.

    Raises:
        InvalidDataError: the sizes of the parts do not add up to the size that the node states, or exceed a limit.
    """
    bounds = list(accumulate([len(data.data or b""), *data.block_sizes], initial=start))
    size_bytes = bounds[-1] - start
    if bounds[-1] > MAX_FILE_BYTES:
        msg = f"the file node {cid} states a size of {size_bytes} bytes, but the limit is {MAX_FILE_BYTES}"
        raise InvalidDataError(msg)
    empty = data.block_sizes.count(0)
    if empty > MAX_EMPTY_PARTS:
        msg = f"the file node {cid} has {empty} parts of 0 bytes, but the limit is {MAX_EMPTY_PARTS}"
        raise InvalidDataError(msg)
    if data.size_bytes not in (None, size_bytes):
        msg = f"the file node {cid} states {data.size_bytes} bytes, but its parts have {size_bytes} bytes in total"
        raise InvalidDataError(msg)
    return bounds


def max_parts(size_bytes: int) -> int:
    """Return the maximum number of leaves of a file. Each occurrence of a leaf counts."""
    return _FREE_PARTS + size_bytes // _MEAN_PART_BYTES


def check_parts(cid: CID, parts: int, size_bytes: int) -> None:
    """Check the number of leaves of a file. Each occurrence of a leaf counts.

    A block may occur in a file any number of times, so a few small blocks can describe a file of 2**60 parts. Real
    files that consist of few distinct blocks, such as disk images full of zeros, have large blocks.

    Raises:
        InvalidDataError: the file has more than ``max_parts`` parts.
    """
    limit = max_parts(size_bytes)
    if parts > limit:
        msg = (
            f"the file {cid} of {size_bytes} bytes has more than {limit} parts, "
            "too many small parts for a read of the whole file"
        )
        raise InvalidDataError(msg)


class UnixFSFile(io.RawIOBase):
    """A UnixFS file that is read block by block. Not safe for concurrent use by threads.

    Args:
        reader: provides the blocks.
        root: the CID of the file, or its node if the caller has read it already.

    Raises:
        IsDirectoryError: the CID names a directory.
        InvalidDataError: the nodes of the file contradict each other.
        NotFoundError, IntegrityError: a block is missing or damaged; also raised while reading.
    """

    def __init__(self, reader: BlockReader, root: CID | UnixFSNode) -> None:
        super().__init__()
        self._reader = reader
        self._path = [_span(read_unixfs(reader, root) if isinstance(root, CID) else root, 0)]
        self._position = 0

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        return self._path[0].end

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position without reading, and return it. Positions after the end are allowed."""
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
        """Read bytes of at most one leaf into the buffer, and return their number."""
        view = memoryview(buffer).cast("B")
        if self._position >= self.size_bytes or not len(view):
            return 0
        piece = self._piece_at(self._position)[: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the rest of the file, one leaf at a time, without copying.

        Raises:
            InvalidDataError: the file has more than ``max_parts`` leaves.
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
        """Return the bytes from ``position`` to the end of the leaf that contains it."""
        while not self._path[-1].start <= position < self._path[-1].end:
            self._path.pop()
        while True:
            span = self._path[-1]
            part = bisect_right(span.bounds, position) - 1
            if part == 0:
                return memoryview(span.own_bytes)[position - span.start :]
            self._path.append(self._child(span, part))

    def _child(self, span: _Span, part: int) -> _Span:
        """Read the node of a link. Raise if it has another size than its parent states."""
        if len(self._path) >= MAX_FILE_DEPTH:
            msg = f"the file {self._path[0].node.cid} has more than {MAX_FILE_DEPTH} levels"
            raise InvalidDataError(msg)
        link = span.node.links[part - 1]
        start, end = span.bounds[part], span.bounds[part + 1]
        child = _span(read_unixfs(self._reader, link.cid), start)
        if child.end != end:
            msg = (
                f"the file node {span.node.cid} states {end - start} bytes for its part {link.cid}, "
                f"but that part has {child.end - start} bytes"
            )
            raise InvalidDataError(msg)
        return child


def open_unixfs(reader: BlockReader, cid: CID) -> io.BufferedReader:
    """Return a file object for buffered, seekable, verified reading."""
    return io.BufferedReader(UnixFSFile(reader, cid), _BUFFER_BYTES)
