"""Garbage collection beside those who publish. Nobody waits for it, and it waits for nobody.

1. Raise the barrier: from here on every CID that gets a name is noted (``barrier.py``).
2. Mark what one snapshot of all names needs (``marks.py``).
3. Move what is still needed out of files that are mostly garbage, and garbage out of the index (``moving.py``).
4. Condemn the files in which nothing is needed: who starts to publish now does not rely on them.
5. Doom those that were condemned long enough ago, if nobody publishes who started before that
   (``open_publications.py``), and if nothing in them was named since the snapshot. One transaction
   looks at the log of names and at the holds (``holds.py``), and dooms: after it nobody can find what is in those files.
6. Delete rows, commit, then delete files.

A kill at any point leaves files condemned, doomed or without rows; the next gc goes on from there.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.open_publications import next_deletion_number, oldest_open, wait_for_older
from mlflow_ipfs.content.storage.local.files.sessions import remove_dead_sessions
from mlflow_ipfs.content.storage.local.gc.barrier import Barrier, raised
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

_PLACES_PER_TRANSACTION: Final = 5_000
_ROUNDS: Final = 3  # looks at the log of names before the last one, for which everybody else has to wait


def collect_garbage(context: StoreContext, reader: BlockReader, *, dry_run: bool, grace_seconds: float) -> GCReport:
    """Drop what no pin, ref, entry, frozen path or outbox row needs.

    Args:
        context: the store.
        reader: names a node that cannot be read.
        dry_run: only say what would go.
        grace_seconds: how long a file stays condemned, at least, before it is deleted.

    Raises:
        StoreBusyError: another gc was running for too long.
        IntegrityError: a node that is needed cannot be read; nothing was collected.
    """
    context.database.check_writable()
    is_full = is_nearly_full(context.layout, context.disk)
    if is_full:
        free_reserve(context.layout, context.disk)
    evicted = evict(context, 0 if is_full else context.cache_bytes, dry_run=dry_run)
    with context.gc_lock.exclusive():
        remove_dead_sessions(context.layout, context.disk)
        report = _look(context, reader, grace_seconds) if dry_run else _Collection(context, grace_seconds).run(reader)
    make_reserve(context.layout, context.disk)
    kept_blocks = report.kept_blocks - evicted.blocks
    return replace(report, kept_blocks=kept_blocks, evicted_files=evicted.files, evicted_bytes=evicted.size_bytes)


def _look(context: StoreContext, reader: BlockReader, grace_seconds: float) -> GCReport:
    strays = find_strays(context, grace_seconds)
    with Marker(context.layout, context.disk, reader) as marks, context.database.snapshot() as connection:
        marks.mark(connection, iterate_root_cids(connection))
        marks.mark(connection, HeldBlocks(context.layout).read_new())
        plan = make_plan(connection, marks)
    tally = _Tally(plan)
    rule = _Rule(oldest_open(context.layout), grace_seconds)
    tally.count([place for place in plan.unneeded if rule.allows(place)])
    if rule.allows_new:
        tally.count_moved()
    return tally.report(sum(size for _, size in strays), dry_run=True)


class _Rule:
    """Which condemned files may go?"""

    def __init__(self, oldest: int | None, grace_seconds: float) -> None:
        self._oldest = oldest
        self._latest = time.time() - grace_seconds if grace_seconds > 0 else float("inf")
        self.allows_new = oldest is None and grace_seconds <= 0

    def allows(self, place: Place) -> bool:
        """Tell whether the grace is over, and everybody knows of the condemnation."""
        number = place.condemned_at
        if number is None:
            return self.allows_new
        return number <= self._latest and (self._oldest is None or self._oldest >= number)


@dataclass(slots=True)
class _Tally:
    """The sums of a report."""

    plan: Plan
    removed_blocks: int = 0
    freed_bytes: int = 0

    def count(self, gone: Sequence[Place]) -> None:
        self.removed_blocks += sum(self.plan.blocks_in[place.id] for place in gone)
        self.freed_bytes += sum(place.size_bytes for place in gone)

    def count_moved(self) -> None:
        """The garbage among inline blocks and in sparse files is gone, too."""
        self.removed_blocks += self._moved_blocks()
        self.freed_bytes += self._moved_bytes()

    def report(self, stray_bytes: int, *, dry_run: bool) -> GCReport:
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
    """One collection. The caller holds ``gc.lock``."""

    def __init__(self, context: StoreContext, grace_seconds: float) -> None:
        self._context = context
        self._grace_seconds = grace_seconds
        self._sweeper = Sweeper(context)
        self._held = HeldBlocks(context.layout)

    def run(self, reader: BlockReader) -> GCReport:
        context = self._context
        self._sweeper.run()  # what an earlier gc had doomed when it was killed
        strays = find_strays(context, self._grace_seconds)
        for name, _ in strays:
            context.disk.remove(context.layout.directory / name)
        with raised(context.database) as barrier, Marker(context.layout, context.disk, reader) as marks:
            with context.database.snapshot() as connection:
                marks.mark(connection, iterate_root_cids(connection))
                marks.mark(connection, self._held.read_new())
                plan = make_plan(connection, marks)
                cached = find_needed(connection, marks)
            own_needed(context, cached)
            marks.take_fresh()
            moved = self._move(plan, marks)
            tally = self._decide(plan, moved, barrier, marks)
        self._sweeper.run()
        context.database.checkpoint()
        return tally.report(sum(size for _, size in strays), dry_run=False)

    def _move(self, plan: Plan, marks: Marker) -> list[Place]:
        """Leave garbage alone in its files. Returns files that hold nothing but garbage now."""
        mover = Mover(self._context)
        emptied: list[Place] = []
        with suppress(StoreFullError):  # then the rest stays where it is until there is room
            emptied += [sparse.place for sparse in plan.sparse if mover.empty_file(sparse.place, marks)]
            emptied += mover.move_inline(plan.inline)
        return emptied

    def _decide(self, plan: Plan, moved: list[Place], barrier: Barrier, marks: Marker) -> _Tally:
        """Condemn what is not needed, and doom what may go at once."""
        number = self._condemn([place for place in plan.unneeded if place.condemned_at is None] + moved)
        self._reprieve([place.id for place in plan.wanted_again])
        # Only now: who is not seen here has started to publish after the condemnation.
        oldest = wait_for_older(self._context.layout, 0 if self._grace_seconds else number)
        rule = _Rule(oldest, self._grace_seconds)
        condemned = [
            place if place.condemned_at is not None else place._replace(condemned_at=number)
            for place in plan.unneeded + moved
        ]
        due = [place for place in condemned if rule.allows(place)]
        for _ in range(_ROUNDS):
            with self._context.database.snapshot() as connection:
                marks.mark(connection, barrier.read(connection))
                marks.mark(connection, self._held.read_new())
        doomed = self._doom(due, barrier, marks)
        tally = _Tally(plan)
        tally.count([place for place in plan.unneeded if place.id in doomed])
        if moved and all(place.id in doomed for place in moved):
            tally.count_moved()
        return tally

    def _condemn(self, places: Sequence[Place]) -> int:
        number = 0
        for batch in _batches(places):
            with self._context.database.write() as connection:
                number = next_deletion_number(connection, int(time.time()))
                connection.executemany(
                    "UPDATE place SET condemned_at = ? WHERE id = ? AND name = ? AND condemned_at IS NULL",
                    [(number, place.id, place.name) for place in batch],
                )
        return number

    def _reprieve(self, place_ids: Sequence[int]) -> None:
        for start in range(0, len(place_ids), _PLACES_PER_TRANSACTION):
            with self._context.database.write() as connection:
                _reprieve(connection, place_ids[start : start + _PLACES_PER_TRANSACTION])

    def _doom(self, due: Sequence[Place], barrier: Barrier, marks: Marker) -> set[int]:
        """Returns the ids of the files that nobody can find any more."""
        doomed: set[int] = set()
        for batch in _batches(due):
            with self._context.database.write() as connection:
                # Again, because one who relies on what is condemned already may have come since.
                rule = _Rule(oldest_open(self._context.layout), self._grace_seconds)
                marks.mark(connection, barrier.read(connection))
                marks.mark(
                    connection, self._held.read_new()
                )  # after the rule: who ended since has held his blocks before
                wanted = _places_of(connection, marks.take_fresh())
                _reprieve(connection, list(wanted))
                going = [place for place in batch if place.id not in wanted and rule.allows(place)]
                connection.executemany(
                    "UPDATE place SET condemned_at = -condemned_at WHERE id = ? AND name = ? AND condemned_at > 0",
                    [(place.id, place.name) for place in going],
                )
            doomed.update(place.id for place in going)
        return doomed


def _batches(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), _PLACES_PER_TRANSACTION):
        yield places[start : start + _PLACES_PER_TRANSACTION]


def _reprieve(connection: sqlite3.Connection, place_ids: Sequence[int]) -> None:
    """Take condemned files back into use. Nothing brings back a doomed one."""
    connection.executemany(
        "UPDATE place SET condemned_at = NULL WHERE id = ? AND condemned_at > 0",
        [(place_id,) for place_id in place_ids],
    )


def _places_of(connection: sqlite3.Connection, block_ids: Sequence[int]) -> set[int]:
    """The files that hold any of the blocks, or are the object of one."""
    query = (
        f"SELECT place FROM block WHERE id IN {VALUES} AND place IS NOT NULL UNION"  # noqa: S608 - fixed texts
        f" SELECT p.id FROM block b JOIN place p ON p.root = b.multihash WHERE b.id IN {VALUES}"
    )
    return {place_id for (place_id,) in select_many(connection, query, block_ids)}
