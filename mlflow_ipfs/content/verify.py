"""Verify: is every block of a DAG here and undamaged, and as the node above it says?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blockstore.interface import MAX_BLOCK_BYTES, get_many
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs import links
from mlflow_ipfs.content.dag import MAX_FOLDER_DEPTH, check_name, decode_name, join_path
from mlflow_ipfs.content.dagpb import decode_node
from mlflow_ipfs.content.file_reader import part_bounds
from mlflow_ipfs.content.hamt import split_shard
from mlflow_ipfs.content.read_ahead import BATCH_BYTES, READ_THREADS, ReadAhead
from mlflow_ipfs.content.unixfs import NodeType, decode_unixfs
from mlflow_ipfs.errors import InvalidDataError, PolicyError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.dagpb import Node
    from mlflow_ipfs.content.unixfs import UnixFSData

_LOOK_AHEAD: Final = 128 * READ_THREADS  # how many of the next blocks are looked at for leaves
_MAX_BATCH_BYTES: Final = 32 << 20
_NO_FILE: Final = -1  # the size of what has none: folders, symlinks, other data
_WORTH_A_THREAD_BYTES: Final = 32 << 10  # below it, handing over costs as much as hashing


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the CID says.

    Attributes:
        cid: the block concerned.
        path: where below the root it is, ``""`` for the root.
        reason: what is wrong with it.
    """

    cid: CID
    path: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        cid: the root.
        blocks: how many blocks were read and hashed.
        size_bytes: how many bytes those blocks have.
        problems: what is wrong; empty when all is well.
        hidden_left_out: how many hidden names that only the disk has were passed over, if it was compared.
    """

    cid: CID
    blocks: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    hidden_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class _Visit(NamedTuple):
    """A block to look at. A tuple, because there are many.

    ``size_bytes`` is what its parent says that it holds of a file, None where the parent says nothing.
    ``below_bytes`` is what the link says of the size of all blocks from here on: a guess, 0 where it says nothing.
    """

    cid: CID
    path: str = ""
    depth: int = 0
    size_bytes: int | None = None
    below_bytes: int = 0

    @property
    def key(self) -> tuple[int, bytes]:
        """The same bytes under two codecs are two blocks: they do not link to the same things."""
        return self.cid.codec, self.cid.multihash

    @property
    def looks_like_leaf(self) -> bool:
        """Whether a thread of its own for this block is likely to be worth it."""
        return _WORTH_A_THREAD_BYTES <= self.below_bytes <= MAX_BLOCK_BYTES


def verify_dag(reader: BlockReader, root: CID, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Read and hash every block below a root, once each, and go on after a bad one.

    A source that cannot be reached is not damage: ``RemoteError`` is raised.

    What parents state about their parts is checked, too, so that content without a problem can be read.
    Nodes are read on the calling thread and in order, large leaves ahead on others; the report is as if
    all were read in order, and ``progress`` is called on the calling thread.
    """
    with ReadAhead(partial(_measure_leaves, reader)) as leaves:
        walk = _Walk(reader, leaves, VerifyReport(root), progress or (lambda _: None))
        walk.run()
    return walk.report


@dataclass(slots=True)
class _Walk:
    """One verification. ``sizes`` has the blocks seen so far, and how much of a file each holds; None for a bad one."""

    reader: BlockReader
    leaves: ReadAhead[CID, tuple[int, int] | None]
    report: VerifyReport
    progress: Callable[[int], None]
    sizes: dict[tuple[int, bytes], int | None] = field(default_factory=dict)

    def run(self) -> None:
        stack = [_Visit(self.report.cid)]
        steps = 0  # until the next look ahead
        while stack:
            if steps == 0:
                self._begin_leaves(stack)
                steps = _LOOK_AHEAD // 2
            steps -= 1
            visit = stack.pop()
            try:
                if visit.key not in self.sizes:
                    self.sizes[visit.key] = None
                    self.sizes[visit.key], below = self._read(visit)
                    stack.extend(reversed(below))
                    steps = 0 if below else steps
                _check_size(visit, self.sizes[visit.key])
            except (PolicyError, RemoteError):
                raise  # what cannot be read or reached now is not damaged
            except (OSError, ValueError) as error:
                self.report.problems.append(Problem(visit.cid, visit.path, str(error)))

    def _begin_leaves(self, stack: list[_Visit]) -> None:
        """Hand the large leaves among the next blocks to the threads, some MiB at once."""
        fresh = {  # each once: files of zeros link to the same leaf all over
            visit.key: visit
            for visit in reversed(stack[-_LOOK_AHEAD:])
            if visit.looks_like_leaf and visit.key not in self.sizes and not self.leaves.has_begun(visit.cid)
        }.values()
        # Every batch wakes the calling thread, which then is in the way of those that hash: so few, but some for each.
        share_bytes = sum(visit.below_bytes for visit in fresh) // (2 * READ_THREADS)
        limit_bytes = min(max(share_bytes, BATCH_BYTES), _MAX_BATCH_BYTES)
        batch: list[CID] = []
        batch_bytes = 0
        for visit in fresh:
            batch.append(visit.cid)
            batch_bytes += visit.below_bytes
            if batch_bytes >= limit_bytes:
                self.leaves.begin(batch)
                batch, batch_bytes = [], 0
        if batch:
            self.leaves.begin(batch)

    def _read(self, visit: _Visit) -> tuple[int, list[_Visit]]:
        leaf = self.leaves.take(visit.cid)
        if leaf is not None:
            block_bytes, size_bytes = leaf
            self._count(block_bytes)
            return size_bytes, []
        block = self.reader.get(visit.cid)
        self._count(len(block))
        return _take_apart(visit, block)

    def _count(self, block_bytes: int) -> None:
        self.report.blocks += 1
        self.report.size_bytes += block_bytes
        self.progress(block_bytes)


def _measure_leaves(reader: BlockReader, cids: Sequence[CID]) -> Generator[tuple[int, int] | None, None, None]:
    """The size of each leaf's block, and how many bytes of a file it holds; None if it is no leaf, or not as it should be.

    What is no leaf is read again by the walk, so that no large block waits in memory for its turn.
    """
    with closing(get_many(reader, cids)) as blocks:
        for cid, block in zip(cids, blocks, strict=True):
            yield _measure_leaf(cid, block)


def _measure_leaf(cid: CID, block: bytes) -> tuple[int, int] | None:
    try:
        size_bytes, below = _take_apart(_Visit(cid), block)
    except ValueError:
        return None
    return None if below else (len(block), size_bytes)


def _check_size(visit: _Visit, size_bytes: int | None) -> None:
    if None not in (visit.size_bytes, size_bytes) and visit.size_bytes != size_bytes:
        held = "nothing" if size_bytes == _NO_FILE else f"{size_bytes} bytes"
        msg = f"{visit.cid} holds {held} of a file, and the node above it says {visit.size_bytes} bytes"
        raise InvalidDataError(msg)


def _take_apart(visit: _Visit, block: bytes) -> tuple[int, list[_Visit]]:
    """Check a block by itself; returns how many bytes of a file it holds, and the blocks below it."""
    cid = visit.cid
    if cid.codec == RAW:
        return len(block), []
    if cid.codec != DAG_PB:
        return _NO_FILE, [_Visit(child, visit.path, visit.depth) for child in links(cid, block)]
    node = decode_node(block)
    if node.data is None:  # dag-pb without UnixFS is sound IPLD; only its links matter here
        return _NO_FILE, [_Visit(link.cid, visit.path, visit.depth) for link in node.links]
    data = decode_unixfs(node)
    if data.is_file:
        parts = zip(node.links, data.block_sizes, strict=True)
        below = [_Visit(link.cid, visit.path, visit.depth, size, link.size_bytes or 0) for link, size in parts]
        return part_bounds(cid, data)[-1], below
    return _NO_FILE, _visits_of_folder(visit, node, data)


def _visits_of_folder(visit: _Visit, node: Node, data: UnixFSData) -> list[_Visit]:
    entries, shards = (node.links, []) if data.type is not NodeType.HAMT_SHARD else split_shard(node, data)
    below = [_Visit(link.cid, visit.path, visit.depth) for link in shards]
    if visit.depth >= MAX_FOLDER_DEPTH and entries:
        msg = f"folders are nested deeper than {MAX_FOLDER_DEPTH} levels"
        raise InvalidDataError(msg)
    seen: set[bytes] = set()
    for link in entries:
        name = link.name or b""
        check_name(visit.cid, name, seen)
        path = join_path(visit.path, decode_name(name))
        below.append(_Visit(link.cid, path, visit.depth + 1, below_bytes=link.size_bytes or 0))
    return below
