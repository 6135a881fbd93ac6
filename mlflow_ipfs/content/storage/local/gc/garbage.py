"""What would go: a gc's plan, made from one snapshot and the marks."""

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
    """A file of the store, as a gc sees it."""

    id: int
    name: str
    size_bytes: int
    condemned_at: int | None


class Sparse(NamedTuple):
    """A file of which most is garbage."""

    place: Place
    unneeded_blocks: int
    unneeded_bytes: int


@dataclass(slots=True)
class _Tally:
    """The blocks of one file."""

    blocks: int = 0
    block_bytes: int = 0
    needed: int = 0
    needed_bytes: int = 0


@dataclass(slots=True)
class Plan:
    """What a snapshot shows.

    Attributes:
        kept_blocks: how many stay where they are, or move.
        unneeded: files in which nothing is needed, condemned already or not.
        wanted_again: condemned files in which something is needed after all.
        sparse: files of which less than half is needed.
        inline: ids of inline blocks that nothing needs.
        inline_bytes: how many bytes those have.
        blocks_in: how many blocks are in each file.
    """

    kept_blocks: int = 0
    unneeded: list[Place] = field(default_factory=list)
    wanted_again: list[Place] = field(default_factory=list)
    sparse: list[Sparse] = field(default_factory=list)
    inline: list[int] = field(default_factory=list)
    inline_bytes: int = 0
    blocks_in: dict[int, int] = field(default_factory=dict)


def make_plan(connection: sqlite3.Connection, marks: Marker) -> Plan:
    """Sort every file and every inline block of a snapshot into what stays and what goes."""
    plan = Plan()
    tallies: dict[int, _Tally] = {}
    for block_id, place_id, length in _iterate_blocks(connection):
        is_needed = block_id in marks
        if place_id is None:
            plan.kept_blocks += is_needed
            if not is_needed:
                plan.inline.append(block_id)
                plan.inline_bytes += length
            continue
        tally = tallies.setdefault(place_id, _Tally())
        tally.blocks += 1
        tally.block_bytes += length
        if is_needed:
            tally.needed += 1
            tally.needed_bytes += length
    roots = _places_of_needed_roots(connection, marks)
    rows = connection.execute("SELECT id, name, size, condemned_at, class FROM place").fetchall()
    for place_id, name, size_bytes, condemned_at, class_ in rows:
        place = Place(place_id, name, size_bytes, condemned_at)
        tally = tallies.get(place_id, _Tally())
        plan.blocks_in[place_id] = tally.blocks
        if class_ == CACHE:  # goes by other rules (``eviction.py``)
            plan.kept_blocks += tally.blocks
        else:
            _sort_in(plan, place, tally, is_needed=bool(tally.needed) or place_id in roots)
    return plan


def _sort_in(plan: Plan, place: Place, tally: _Tally, *, is_needed: bool) -> None:
    if not is_needed:
        plan.unneeded.append(place)
        return
    plan.kept_blocks += tally.blocks
    if place.condemned_at is not None:
        plan.wanted_again.append(place)
    if 2 * tally.needed_bytes < tally.block_bytes:  # never so in the object of a root that is needed
        sparse = Sparse(place, tally.blocks - tally.needed, tally.block_bytes - tally.needed_bytes)
        plan.sparse.append(sparse)
        plan.kept_blocks -= sparse.unneeded_blocks


def _places_of_needed_roots(connection: sqlite3.Connection, marks: Marker) -> set[int]:
    """Objects whose root is needed: their leaves may all have rows in other objects."""
    rows = connection.execute("SELECT p.id, b.id FROM place p JOIN block b ON b.multihash = p.root")
    return {place_id for place_id, block_id in rows if block_id in marks}


def _iterate_blocks(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None, int]]:
    last = 0
    while rows := connection.execute(
        "SELECT id, place, length FROM block WHERE id > ? ORDER BY id LIMIT ?", (last, _PAGE)
    ).fetchall():
        last = rows[-1][0]
        yield from rows
