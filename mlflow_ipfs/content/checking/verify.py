"""Verify: is every block of a DAG here and undamaged, and as the node above it says?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.checking.verify_blocks import (
    NO_FILE,
    Parent,
    Role,
    Visit,
    check_role,
    path_text,
    place_of,
    take_apart,
)
from mlflow_ipfs.content.files.tree_size import TreeSize, check_tree_size
from mlflow_ipfs.content.system.read_ahead import BATCH_BYTES, READ_THREADS, ReadAhead
from mlflow_ipfs.errors import PolicyError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID

_LOOK_AHEAD: Final = 128 * READ_THREADS  # how many of the next blocks are looked at for leaves
_ENTRY: Final = Role.ENTRY  # much faster than the attribute of an Enum
_MAX_BATCH_BYTES: Final = 32 << 20
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


class _Close(NamedTuple):
    """The end of what is below a block. ``below_bytes`` is that of a visit, for one look at both."""

    visit: Visit
    parent: Parent
    below_bytes: int = 0


def verify_dag(reader: BlockReader, root: CID, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Read and hash every block below a root, once each, and go on after a bad one.

    A source that cannot be reached is not damage: ``RemoteError`` is raised.

    A UnixFS directory or file without a problem can be listed, read and written to disk: the checks are those of the
    readers. Of data that is not UnixFS, only its blocks and links are checked.
    Nodes are read on the calling thread and in order, large leaves ahead on others; the report is as if
    all were read in order, and ``progress`` is called on the calling thread.
    """
    with ReadAhead(partial(_measure_leaves, reader)) as leaves:
        walk = _Walk(reader, leaves, VerifyReport(root), progress or (lambda _: None))
        walk.run()
    return walk.report


@dataclass(slots=True)
class _Walk:
    """One verification.

    ``found`` has the blocks seen so far: how much of a file each holds, or its ``Parent``; None for a bad one.
    """

    reader: BlockReader
    leaves: ReadAhead[CID, tuple[int, int] | None]
    report: VerifyReport
    progress: Callable[[int], None]
    found: dict[tuple[int, bytes], int | Parent | None] = field(default_factory=dict)
    stored_entries: int = 0

    def run(self) -> None:
        stack: list[Visit | _Close] = [Visit(self.report.cid)]
        steps = 0  # until the next look ahead
        while stack:
            if steps == 0:
                self._begin_leaves(stack)
                steps = _LOOK_AHEAD // 2
            steps -= 1
            item = stack.pop()
            visit = item.visit if isinstance(item, _Close) else item
            try:
                if isinstance(item, _Close):
                    self._close(item)
                elif self._step(item, stack):
                    steps = 0
            except (PolicyError, RemoteError):
                raise  # what cannot be read or reached now is not damaged
            except (OSError, ValueError) as error:
                self.report.problems.append(Problem(visit.cid, path_text(visit.path), str(error)))

    def _step(self, visit: Visit, stack: list[Visit | _Close]) -> bool:
        """Check a block, and put on the stack what is below it. Returns whether there is anything."""
        key = visit.key
        if key in self.found:
            found = self.found[key]
            if not isinstance(found, Parent):
                check_role(visit, found)
                return False
            if found.place is not None or place_of(visit, found.fanout) is None:
                if visit.parent is not None:
                    visit.parent.add(found)
                check_role(visit, found)
                found.check_as(visit)
                return False
            # A HAMT shard that was only linked by data that is not UnixFS: where its names belong is known now.
            found, below = take_apart(visit, self.reader.get(visit.cid))
        else:
            self.found[key] = None
            found, below = self._read(visit)
        self.found[key] = found
        if isinstance(found, Parent):
            stack.append(_Close(visit, found))
        elif visit.role is _ENTRY and found >= NO_FILE:
            return False  # nearly all blocks of a directory of small files
        stack.extend(reversed(below))
        if isinstance(found, Parent) and found.fault is not None:
            raise found.fault
        check_role(visit, found)
        return bool(below)

    def _close(self, item: _Close) -> None:
        visit, parent, _ = item
        if visit.parent is not None:
            visit.parent.add(parent)
        if not parent.is_file and not parent.is_child_shard:
            self.stored_entries += parent.own_count
        parent.check_levels(visit.cid)
        parent.check_as(visit)
        if visit.role is Role.ROOT and not parent.is_file:
            check_tree_size(visit.cid, TreeSize(parent.count, self.stored_entries))

    def _begin_leaves(self, stack: list[Visit | _Close]) -> None:
        """Hand the large leaves among the next blocks to the threads, some MiB at once."""
        fresh = {  # each once: files of zeros link to the same leaf all over
            visit.key: visit
            for visit in reversed(stack[-_LOOK_AHEAD:])
            if _WORTH_A_THREAD_BYTES <= visit.below_bytes <= MAX_BLOCK_BYTES
            and isinstance(visit, Visit)
            and visit.key not in self.found
            and not self.leaves.has_begun(visit.cid)
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

    def _read(self, visit: Visit) -> tuple[int | Parent, list[Visit]]:
        leaf = self.leaves.take(visit.cid)
        if leaf is not None:
            block_bytes, size_bytes = leaf
            self._count(block_bytes)
            return size_bytes, []
        block = self.reader.get(visit.cid)
        self._count(len(block))
        return take_apart(visit, block)

    def _count(self, block_bytes: int) -> None:
        self.report.blocks += 1
        self.report.size_bytes += block_bytes
        self.progress(block_bytes)


def _measure_leaves(reader: BlockReader, cids: Sequence[CID]) -> Generator[tuple[int, int] | None, None, None]:
    """The size of each leaf's block, and how many bytes of a file it holds; None if it is no leaf, or not as it should be.

    What is no leaf is read again by the walk, so that no large block waits in memory for its turn.
    """
    with closing(reader.get_many(cids)) as blocks:
        for cid, block in zip(cids, blocks, strict=True):
            yield _measure_leaf(cid, block)


def _measure_leaf(cid: CID, block: bytes) -> tuple[int, int] | None:
    try:
        size_bytes, below = take_apart(Visit(cid), block)
    except ValueError:
        return None
    return None if below or isinstance(size_bytes, Parent) else (len(block), size_bytes)
