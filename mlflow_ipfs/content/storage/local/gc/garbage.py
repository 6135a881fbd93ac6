"""The plan of a gc: what is garbage, from one snapshot and the marks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.storage.local.index.index_rows import CACHE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from mlflow_ipfs.content.storage.local.reading.marks import Marker

_PAGE: Final = 10_000


class Place(NamedTuple):
    """A file of the store with its deletion state.

    Attributes:
        id: the id of its row.
        name: its path, relative to the store's directory.
        size_bytes: its size.
        condemned_at: the number of the marking as deletable, negated once the file is tombstoned; None while in use.
    """

    id: int
    name: str
    size_bytes: int
    condemned_at: int | None


class Sparse(NamedTuple):
    """A file that is mostly garbage."""

    place: Place
    unneeded_blocks: int
    unneeded_bytes: int


@dataclass(slots=True)
class _BlockCounts:
    """The number and size of the blocks of one file, and of those that are needed."""

    blocks: int = 0
    block_bytes: int = 0
    needed: int = 0
    needed_bytes: int = 0


@dataclass(slots=True)
class Plan:
    """The files and blocks of a snapshot, classified.

    Attributes:
        kept_blocks: how many blocks stay where they are, or move.
        unneeded: files without a needed block, marked deletable already or not.
        needed_again: files that were marked deletable, but hold a needed block.
        sparse: files of which less than half is needed.
        inline: ids of inline blocks that no name needs.
        inline_bytes: the size of those blocks.
        blocks_in: how many blocks each file holds, by the id of the file.
    """

    kept_blocks: int = 0
    unneeded: list[Place] = field(default_factory=list)
    needed_again: list[Place] = field(default_factory=list)
    sparse: list[Sparse] = field(default_factory=list)
    inline: list[int] = field(default_factory=list)
    inline_bytes: int = 0
    blocks_in: dict[int, int] = field(default_factory=dict)


def make_plan(connection: sqlite3.Connection, marks: Marker) -> Plan:
    """Classify every file and every inline block of a snapshot as needed or garbage."""
    plan = Plan()
    counts_of: dict[int, _BlockCounts] = {}
    for block_id, place_id, length in _iterate_blocks(connection):
        is_needed = block_id in marks
        if place_id is None:
            plan.kept_blocks += is_needed
            if not is_needed:
                plan.inline.append(block_id)
                plan.inline_bytes += length
            continue
        counts = counts_of.setdefault(place_id, _BlockCounts())
        counts.blocks += 1
        counts.block_bytes += length
        if is_needed:
            counts.needed += 1
            counts.needed_bytes += length
    roots = _places_of_needed_roots(connection, marks)
    rows = connection.execute("SELECT id, name, size, condemned_at, class FROM place").fetchall()
    for place_id, name, size_bytes, condemned_at, class_ in rows:
        place = Place(place_id, name, size_bytes, condemned_at)
        counts = counts_of.get(place_id, _BlockCounts())
        plan.blocks_in[place_id] = counts.blocks
        if class_ == CACHE:  # evicted by other rules (``eviction.py``)
            plan.kept_blocks += counts.blocks
        else:
            _classify(plan, place, counts, is_needed=bool(counts.needed) or place_id in roots)
    return plan


def _classify(plan: Plan, place: Place, counts: _BlockCounts, *, is_needed: bool) -> None:
    if not is_needed:
        plan.unneeded.append(place)
        return
    plan.kept_blocks += counts.blocks
    if place.condemned_at is not None:
        plan.needed_again.append(place)
    if 2 * counts.needed_bytes < counts.block_bytes:  # never the object of a needed root
        sparse = Sparse(place, counts.blocks - counts.needed, counts.block_bytes - counts.needed_bytes)
        plan.sparse.append(sparse)
        plan.kept_blocks -= sparse.unneeded_blocks


def _places_of_needed_roots(connection: sqlite3.Connection, marks: Marker) -> set[int]:
    """Return the ids of the objects whose root is needed. The rows of their leaves may all refer to other objects."""
    rows = connection.execute("SELECT p.id, b.id FROM place p JOIN block b ON b.multihash = p.root")
    return {place_id for place_id, block_id in rows if block_id in marks}


def _iterate_blocks(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None, int]]:
    last = 0
    while rows := connection.execute(
        "SELECT id, place, length FROM block WHERE id > ? ORDER BY id LIMIT ?", (last, _PAGE)
    ).fetchall():
        last = rows[-1][0]
        yield from rows
