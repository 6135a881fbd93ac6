"""Verification of a DAG.

Checks that every block is present, undamaged, and consistent with the links to it.
"""

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
    check_block,
    check_role,
    path_text,
    shard_position,
)
from mlflow_ipfs.content.files.tree_size import TreeSize, check_tree_size
from mlflow_ipfs.content.system.read_ahead import BATCH_BYTES, READ_THREADS, ReadAhead
from mlflow_ipfs.errors import PolicyError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID

_LOOKAHEAD_BLOCKS: Final = 128 * READ_THREADS  # how many of the next blocks are searched for large leaves
_ENTRY: Final = Role.ENTRY  # much faster than the attribute of an Enum
_MAX_BATCH_BYTES: Final = 32 << 20
_MIN_THREADED_BYTES: Final = 32 << 10  # for smaller leaves, passing them to a thread costs as much as hashing them


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem that a verification or a comparison found.

    Attributes:
        cid: CID of the block concerned.
        path: path below the root, or ``""`` for the root.
        reason: description of the problem.
    """

    cid: CID
    path: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """Result of a verification.

    Attributes:
        cid: CID of the root.
        blocks: number of blocks that were read and hashed.
        size_bytes: total size of those blocks in bytes.
        problems: problems that were found; empty if the content is valid.
        hidden_left_out: number of hidden names only on disk that were ignored, if the content was compared with files.
    """

    cid: CID
    blocks: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    hidden_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


class _Close(NamedTuple):
    """Stack item that follows the blocks below a parent, to finish the parent.

    ``below_bytes`` exists so that the lookahead can read the same field of a ``Visit`` and of a ``_Close``.
    """

    visit: Visit
    parent: Parent
    below_bytes: int = 0


def verify_dag(reader: BlockReader, root: CID, *, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Read and hash every block of a DAG once. A bad block is reported and does not stop the verification.

    A UnixFS directory or file without a problem can be listed, read and written to disk, because the readers make the
    same checks. Of data that is not UnixFS, only the blocks and links are checked.

    Nodes are read in order on the calling thread. Large leaves are read ahead on other threads. The report is the same
    as if all blocks were read in order.

    Args:
        reader: source of the blocks.
        root: root of the DAG.
        progress: called on the calling thread with the length of each block in bytes.

    Raises:
        PolicyError: reading a block is not permitted.
        RemoteError: a remote source cannot be reached. This is not reported as damage.
    """
    with ReadAhead(partial(_measure_leaves, reader)) as leaves:
        walk = _Walk(reader, leaves, VerifyReport(root), progress or (lambda _: None))
        walk.run()
    return walk.report


@dataclass(slots=True)
class _Walk:
    """State of one verification.

    ``found`` contains the blocks visited so far: the number of file bytes in the block, or its ``Parent``. It is None
    for a bad block.
    """

    reader: BlockReader
    leaves: ReadAhead[CID, tuple[int, int] | None]
    report: VerifyReport
    progress: Callable[[int], None]
    found: dict[tuple[int, bytes], int | Parent | None] = field(default_factory=dict)
    stored_entries: int = 0
    reported: set[Problem] = field(default_factory=set)

    def run(self) -> None:
        stack: list[Visit | _Close] = [Visit(self.report.cid)]
        steps = 0  # until the next lookahead
        while stack:
            if steps == 0:
                self._begin_leaves(stack)
                steps = _LOOKAHEAD_BLOCKS // 2
            steps -= 1
            item = stack.pop()
            visit = item.visit if isinstance(item, _Close) else item
            try:
                if isinstance(item, _Close):
                    self._close(item)
                elif self._step(item, stack):
                    steps = 0
            except (PolicyError, RemoteError):
                raise  # content that cannot be read or reached now is not damaged
            except (OSError, ValueError) as error:
                self._report(Problem(visit.cid, path_text(visit.path), str(error)))

    def _report(self, problem: Problem) -> None:
        """Add a problem to the report once: a block that is linked many times has it at each link."""
        if problem not in self.reported:
            self.reported.add(problem)
            self.report.problems.append(problem)

    def _step(self, visit: Visit, stack: list[Visit | _Close]) -> bool:
        """Check a block and push the blocks below it onto the stack. Return whether any were pushed."""
        key = visit.key
        if key in self.found:
            found = self.found[key]
            if not isinstance(found, Parent):
                check_role(visit, found)
                return False
            if found.position is not None or shard_position(visit, found.fanout) is None:
                if visit.parent is not None:
                    visit.parent.add(found)
                check_role(visit, found)
                found.check_as(visit)
                return False
            # So far, this HAMT shard was only linked by data that is not UnixFS. Its position in a HAMT is known now.
            found, below = check_block(visit, self.reader.get(visit.cid))
        else:
            self.found[key] = None
            found, below = self._read(visit)
        self.found[key] = found
        if isinstance(found, Parent):
            stack.append(_Close(visit, found))
        elif visit.role is _ENTRY and found >= NO_FILE:
            return False  # shortcut for nearly all blocks of a directory of small files
        stack.extend(reversed(below))
        if isinstance(found, Parent) and found.error is not None:
            raise found.error
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
        """Pass the large leaves among the next blocks to the threads, in batches of some MiB."""
        fresh = {  # each leaf once: a file of zeros links to the same leaf many times
            visit.key: visit
            for visit in reversed(stack[-_LOOKAHEAD_BLOCKS:])
            if _MIN_THREADED_BYTES <= visit.below_bytes <= MAX_BLOCK_BYTES
            and isinstance(visit, Visit)
            and visit.key not in self.found
            and not self.leaves.has_begun(visit.cid)
        }.values()
        # Every batch wakes the calling thread, which then competes with the hashing threads. So batches are few, but
        # each thread gets some.
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
        return check_block(visit, block)

    def _count(self, block_bytes: int) -> None:
        self.report.blocks += 1
        self.report.size_bytes += block_bytes
        self.progress(block_bytes)


def _measure_leaves(reader: BlockReader, cids: Sequence[CID]) -> Generator[tuple[int, int] | None, None, None]:
    """Yield, for each leaf, the size of its block and the number of file bytes in it; None if it is not a valid leaf.

    Blocks that are not leaves are read again by the walk, so that no large block is kept in memory until its turn.
    """
    with closing(reader.get_many(cids)) as blocks:
        for cid, block in zip(cids, blocks, strict=True):
            yield _measure_leaf(cid, block)


def _measure_leaf(cid: CID, block: bytes) -> tuple[int, int] | None:
    try:
        size_bytes, below = check_block(Visit(cid), block)
    except ValueError:
        return None
    return None if below or isinstance(size_bytes, Parent) else (len(block), size_bytes)
