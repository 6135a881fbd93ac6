"""Concurrent garbage collection. Publishers and gc do not block each other.

1. Raise the barrier: from now on, every CID that gets a name is logged (``barrier.py``).
2. Mark the blocks that one snapshot of all names needs (``reading/marks.py``).
3. Move needed blocks out of files that are mostly garbage, and garbage out of the index (``moving.py``).
4. Mark files without a needed block as deletable: a publication that starts later does not rely on them.
5. Tombstone the files that were marked deletable long enough ago. No publication that started before that may still be
   open (``files/open_publications.py``), and no block in these files may have been named since the snapshot. One
   transaction reads the log of names and the holds (``publishing/holds.py``) and writes the tombstones. After it, no
   reader finds the blocks in these files.
6. Delete the rows, commit, then delete the files.

In the index, a file is marked deletable by a positive ``condemned_at``, and tombstoned by a negative one. If gc is
killed, it leaves files that are deletable, tombstoned or without rows; the next gc continues from there.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.open_publications import next_deletion_number, oldest_open, wait_for_older
from mlflow_ipfs.content.storage.local.files.sessions import remove_dead_sessions
from mlflow_ipfs.content.storage.local.gc.barrier import Barrier, write_barrier
from mlflow_ipfs.content.storage.local.gc.eviction import evict
from mlflow_ipfs.content.storage.local.gc.garbage import Place, Plan, make_plan
from mlflow_ipfs.content.storage.local.gc.moving import Mover
from mlflow_ipfs.content.storage.local.gc.sweeping import Sweeper, find_strays
from mlflow_ipfs.content.storage.local.index.index_rows import VALUES, select_many
from mlflow_ipfs.content.storage.local.index.layout import free_reserve, is_nearly_full, make_reserve
from mlflow_ipfs.content.storage.local.index.name_tables import iterate_root_cids
from mlflow_ipfs.content.storage.local.publishing.holds import HeldBlocks
from mlflow_ipfs.content.storage.local.publishing.promotion import find_needed, own_needed
from mlflow_ipfs.content.storage.local.reading.marks import Marker
from mlflow_ipfs.content.storage.maintenance import GCReport
from mlflow_ipfs.errors import StoreFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_logger = logging.getLogger(__name__)

_PLACES_PER_TRANSACTION: Final = 5_000
_LOG_READS: Final = 3  # reads of the log without the write lock, so that the last read, with the lock, is short


def collect_garbage(context: StoreContext, reader: BlockReader, *, dry_run: bool, grace_seconds: float) -> GCReport:
    """Delete the blocks that no pin, ref, entry, frozen path or outbox row needs.

    Args:
        context: the store.
        reader: reads a damaged or missing node again, to record the damage and raise an error that names the node.
        dry_run: only report what would be deleted.
        grace_seconds: how long a file must have been marked deletable before it is deleted.

    Raises:
        StoreBusyError: another gc was still running when the time limit passed.
        IntegrityError: a node that is needed cannot be read; nothing was deleted.
    """
    context.database.check_writable()
    is_full = is_nearly_full(context.layout, context.disk)
    if is_full:
        free_reserve(context.layout, context.disk)
    evicted = evict(context, 0 if is_full else context.cache_bytes, dry_run=dry_run)
    with context.gc_lock.exclusive():
        remove_dead_sessions(context.layout, context.disk)
        if dry_run:
            report = _simulate(context, reader, grace_seconds)
        else:
            report = _Collection(context, grace_seconds).run(reader)
    make_reserve(context.layout, context.disk)
    kept_blocks = report.kept_blocks - evicted.blocks
    return replace(report, kept_blocks=kept_blocks, evicted_files=evicted.files, evicted_bytes=evicted.size_bytes)


def _simulate(context: StoreContext, reader: BlockReader, grace_seconds: float) -> GCReport:
    """Return the report of a dry run."""
    strays = find_strays(context, grace_seconds)
    with Marker(context.layout, context.disk, reader) as marks, context.database.snapshot() as connection:
        marks.mark(connection, iterate_root_cids(connection))
        marks.mark(connection, HeldBlocks(context.layout).read_new())
        plan = make_plan(connection, marks)
    tally = _Tally(plan)
    rule = _DeletionRule(oldest_open(context.layout), grace_seconds)
    tally.count([place for place in plan.unneeded if rule.allows(place)])
    if rule.allows_new:
        tally.count_moved()
    return tally.report(sum(size for _, size in strays), dry_run=True)


class _DeletionRule:
    """The rule that decides which deletable files may be tombstoned.

    Args:
        oldest: the number of the last marking that every open publication knows of; None without open publications.
        grace_seconds: how long a file must have been marked deletable.

    Attributes:
        allows_new: whether files that are marked deletable now may be tombstoned at once.
    """

    def __init__(self, oldest: int | None, grace_seconds: float) -> None:
        self._oldest = oldest
        self._latest = time.time() - grace_seconds if grace_seconds > 0 else float("inf")
        self.allows_new = oldest is None and grace_seconds <= 0

    def allows(self, place: Place) -> bool:
        """Return whether the grace period is over, and every open publication knows that the file is deletable."""
        number = place.condemned_at
        if number is None:
            return self.allows_new
        return number <= self._latest and (self._oldest is None or self._oldest >= number)


@dataclass(slots=True)
class _Tally:
    """The sums for a report."""

    plan: Plan
    removed_blocks: int = 0
    freed_bytes: int = 0

    def count(self, deleted: Sequence[Place]) -> None:
        """Count files of the plan as deleted."""
        self.removed_blocks += sum(self.plan.blocks_in[place.id] for place in deleted)
        self.freed_bytes += sum(place.size_bytes for place in deleted)

    def count_moved(self) -> None:
        """Count the garbage among inline blocks and in sparse files as deleted."""
        self.removed_blocks += self._moved_blocks()
        self.freed_bytes += self._moved_bytes()

    def report(self, stray_bytes: int, *, dry_run: bool) -> GCReport:
        """Return the report. What the plan found and was not counted as deleted is deletable later."""
        blocks = sum(self.plan.blocks_in[place.id] for place in self.plan.unneeded) + self._moved_blocks()
        size_bytes = sum(place.size_bytes for place in self.plan.unneeded) + self._moved_bytes()
        return GCReport(
            kept_blocks=self.plan.kept_blocks,
            removed_blocks=self.removed_blocks,
            freed_bytes=self.freed_bytes + stray_bytes,
            dry_run=dry_run,
            deletable_blocks=blocks - self.removed_blocks,
            deletable_bytes=size_bytes - self.freed_bytes,
        )

    def _moved_blocks(self) -> int:
        return len(self.plan.inline) + sum(garbage.unneeded_blocks for garbage in self.plan.sparse)

    def _moved_bytes(self) -> int:
        return self.plan.inline_bytes + sum(garbage.unneeded_bytes for garbage in self.plan.sparse)


class _Collection:
    """One collection. The caller must hold ``gc.lock``."""

    def __init__(self, context: StoreContext, grace_seconds: float) -> None:
        self._context = context
        self._grace_seconds = grace_seconds
        self._sweeper = Sweeper(context)
        self._held = HeldBlocks(context.layout)

    def run(self, reader: BlockReader) -> GCReport:
        """Collect garbage and return the report."""
        context = self._context
        self._sweeper.run()  # deletes what an earlier gc tombstoned before it was killed
        strays = find_strays(context, self._grace_seconds)
        for name, _ in strays:
            context.disk.remove(context.layout.directory / name)
        with write_barrier(context.database) as barrier, Marker(context.layout, context.disk, reader) as marks:
            with context.database.snapshot() as connection:
                marks.mark(connection, iterate_root_cids(connection))
                marks.mark(connection, self._held.read_new())
                plan = make_plan(connection, marks)
                cached = find_needed(connection, marks)
            own_needed(context, cached)
            marks.take_fresh()
            moved = self._move(plan, marks)
            tally = self._mark_and_tombstone(plan, moved, barrier, marks)
        self._sweeper.run()
        context.database.checkpoint()
        return tally.report(sum(size for _, size in strays), dry_run=False)

    def _move(self, plan: Plan, marks: Marker) -> list[Place]:
        """Separate garbage from needed blocks. Return the files that now hold only garbage."""
        mover = Mover(self._context)
        emptied: list[Place] = []
        with suppress(StoreFullError):  # the remaining blocks stay where they are until the disk has room
            emptied += [sparse.place for sparse in plan.sparse if mover.empty_file(sparse.place, marks)]
            emptied += mover.move_inline(plan.inline)
        return emptied

    def _mark_and_tombstone(self, plan: Plan, moved: list[Place], barrier: Barrier, marks: Marker) -> _Tally:
        """Mark unneeded files as deletable, and tombstone those that may be deleted now. Return the sums."""
        number = self._mark_deletable([place for place in plan.unneeded if place.condemned_at is None] + moved)
        self._clear_deletable([place.id for place in plan.needed_again])
        # Read after the marking: a publication that is not found here started after it.
        oldest = wait_for_older(self._context.layout, 0 if self._grace_seconds else number)
        rule = _DeletionRule(oldest, self._grace_seconds)
        deletable = [
            place if place.condemned_at is not None else place._replace(condemned_at=number)
            for place in plan.unneeded + moved
        ]
        due = [place for place in deletable if rule.allows(place)]
        for _ in range(_LOG_READS):
            with self._context.database.snapshot() as connection:
                marks.mark(connection, barrier.read(connection))
                marks.mark(connection, self._held.read_new())
        tombstoned = self._tombstone(due, barrier, marks)
        _logger.debug(
            "no name needs %d files: %d wait for the grace period or an open publication, %d are needed again, %d are deleted",
            len(deletable),
            len(deletable) - len(due),
            len(due) - len(tombstoned),
            len(tombstoned),
        )
        tally = _Tally(plan)
        tally.count([place for place in plan.unneeded if place.id in tombstoned])
        if moved and all(place.id in tombstoned for place in moved):
            tally.count_moved()
        return tally

    def _mark_deletable(self, places: Sequence[Place]) -> int:
        """Mark files as deletable. Return the number of the last marking; 0 without files."""
        number = 0
        for batch in _batches(places):
            with self._context.database.write() as connection:
                number = next_deletion_number(connection, int(time.time()))
                connection.executemany(
                    "UPDATE place SET condemned_at = ? WHERE id = ? AND name = ? AND condemned_at IS NULL",
                    [(number, place.id, place.name) for place in batch],
                )
        return number

    def _clear_deletable(self, place_ids: Sequence[int]) -> None:
        for start in range(0, len(place_ids), _PLACES_PER_TRANSACTION):
            with self._context.database.write() as connection:
                _clear_deletable(connection, place_ids[start : start + _PLACES_PER_TRANSACTION])

    def _tombstone(self, due: Sequence[Place], barrier: Barrier, marks: Marker) -> set[int]:
        """Tombstone the files that are still deletable. Return their ids."""
        tombstoned: set[int] = set()
        for batch in _batches(due):
            with self._context.database.write() as connection:
                # Read again: a publication that relies on deletable files may have started in the meantime.
                rule = _DeletionRule(oldest_open(self._context.layout), self._grace_seconds)
                marks.mark(connection, barrier.read(connection))
                # Holds after open publications: one that has ended since had flushed its hold before.
                marks.mark(connection, self._held.read_new())
                needed = _places_of(connection, marks.take_fresh())
                _clear_deletable(connection, list(needed))
                unneeded = [place for place in batch if place.id not in needed and rule.allows(place)]
                connection.executemany(
                    "UPDATE place SET condemned_at = -condemned_at WHERE id = ? AND name = ? AND condemned_at > 0",
                    [(place.id, place.name) for place in unneeded],
                )
            tombstoned.update(place.id for place in unneeded)
        return tombstoned


def _batches(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), _PLACES_PER_TRANSACTION):
        yield places[start : start + _PLACES_PER_TRANSACTION]


def _clear_deletable(connection: sqlite3.Connection, place_ids: Sequence[int]) -> None:
    """Put deletable files back into use. A tombstoned file stays tombstoned."""
    connection.executemany(
        "UPDATE place SET condemned_at = NULL WHERE id = ? AND condemned_at > 0",
        [(place_id,) for place_id in place_ids],
    )


def _places_of(connection: sqlite3.Connection, block_ids: Sequence[int]) -> set[int]:
    """Return the ids of the files that hold any of the blocks, or are the object of one."""
    query = (
        f"SELECT place FROM block WHERE id IN {VALUES} AND place IS NOT NULL UNION"  # noqa: S608 - fixed texts
        f" SELECT p.id FROM block b JOIN place p ON p.root = b.multihash WHERE b.id IN {VALUES}"
    )
    return {place_id for (place_id,) in select_many(connection, query, block_ids)}
