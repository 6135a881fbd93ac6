"""Garbage collection, the simple and safe form: nobody publishes meanwhile, and what is in doubt is kept.

All roots are read from one snapshot, every block below them is marked, and a file is dropped only
if nothing in it is marked. Rows go first and are committed, then the files: a kill in between
leaves files without rows, which the next collection removes.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.interface import GCReport, LeafForm
from mlflow_ipfs.content.blockstore.local.reserve import free_reserve, is_nearly_full, make_reserve
from mlflow_ipfs.content.blockstore.local.sessions import remove_dead_sessions
from mlflow_ipfs.content.blockstore.marking import mark
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.errors import StoreFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.blockstore.local.parts import Parts

_ROWS_PER_TRANSACTION: Final = 10_000
_FEWEST_ROWS: Final = 100  # what the reserve has room for, however the rows lie in the index
_PAGE: Final = 10_000


@dataclass(slots=True)
class _Plan:
    """What goes.

    Attributes:
        places: rows of files in which nothing is needed: id, name, size in bytes.
        inline: ids of inline blocks that nothing needs.
        strays: paths below the store's folder of files without a row, with their sizes.
    """

    kept_blocks: int = 0
    removed_blocks: int = 0
    inline_bytes: int = 0
    places: list[tuple[int, str, int]] = field(default_factory=list)
    inline: list[int] = field(default_factory=list)
    strays: list[tuple[str, int]] = field(default_factory=list)

    def report(self, *, dry_run: bool) -> GCReport:
        files = sum(place[2] for place in self.places) + sum(stray[1] for stray in self.strays)
        return GCReport(self.kept_blocks, self.removed_blocks, self.inline_bytes + files, dry_run)


def collect_garbage(parts: Parts, reader: BlockReader, *, dry_run: bool) -> GCReport:
    """Drop what no pin, ref, entry, frozen path or outbox row needs.

    Raises:
        StoreBusyError: publications were still running when the time limit passed.
        IntegrityError: a node that is needed cannot be read; nothing was collected.
    """
    parts.database.check_writable()
    if is_nearly_full(parts.layout, parts.disk):
        free_reserve(parts.layout, parts.disk)
    with parts.gc_lock.exclusive():
        remove_dead_sessions(parts.layout, parts.disk)
        with parts.database.snapshot() as connection:
            plan = _make_plan(connection, _mark(connection, reader), parts.layout)
        if not dry_run:
            _Sweeper(parts).run(plan)
    make_reserve(parts.layout, parts.disk)
    return plan.report(dry_run=dry_run)


class _Marks:
    """A bit for each row of ``block``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        last = connection.execute("SELECT coalesce(max(id), 0) FROM block").fetchone()[0]
        self._bits = bytearray((last >> 3) + 1)
        self._connection = connection
        self._nodes: set[tuple[bytes, int]] = set()

    def keep(self, cid: CID) -> bool:
        """Mark a block. Returns whether its links are to be followed."""
        if cid.identity_data is None:
            row = self._connection.execute(
                "SELECT id, form FROM block WHERE multihash = ?", (cid.multihash,)
            ).fetchone()
            if row is not None:
                self._bits[row[0] >> 3] |= 1 << (row[0] & 7)
                if row[1] == LeafForm.UNIXFS_FILE:  # a leaf in the form of a node
                    return False
        if cid.codec == RAW or (cid.multihash, cid.codec) in self._nodes:
            return False
        self._nodes.add((cid.multihash, cid.codec))
        return True

    def __contains__(self, block_id: int) -> bool:
        return bool(self._bits[block_id >> 3] & 1 << (block_id & 7))


def _mark(connection: sqlite3.Connection, reader: BlockReader) -> _Marks:
    tables = ("pin", "ref", "entry", "frozen", "outbox")
    query = " UNION ".join(f"SELECT cid FROM {table}" for table in tables)  # noqa: S608 - the names above
    roots = [CID.from_bytes(row[0]) for row in connection.execute(query).fetchall()]
    marks = _Marks(connection)
    mark(reader, roots, marks.keep)
    return marks


def _make_plan(connection: sqlite3.Connection, marks: _Marks, layout: Layout) -> _Plan:
    plan = _Plan()
    rows_of: dict[int, int] = {}
    needed = {
        place_id
        for place_id, block_id in connection.execute(
            "SELECT p.id, b.id FROM place p JOIN block b ON b.multihash = p.root"
        ).fetchall()
        if block_id in marks
    }
    for block_id, place_id, length in _iterate_blocks(connection):
        if place_id is not None:
            rows_of[place_id] = rows_of.get(place_id, 0) + 1
            if block_id in marks:
                needed.add(place_id)
        elif block_id in marks:
            plan.kept_blocks += 1
        else:
            plan.inline.append(block_id)
            plan.inline_bytes += length
    places = connection.execute("SELECT id, name, size FROM place").fetchall()
    plan.places = [place for place in places if place[0] not in needed]
    plan.removed_blocks = len(plan.inline) + sum(rows_of.get(place[0], 0) for place in plan.places)
    plan.kept_blocks += sum(rows_of.get(place_id, 0) for place_id in needed)
    plan.strays = list(_find_strays(layout, {name for _, name, _ in places}))
    return plan


def _iterate_blocks(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None, int]]:
    last = 0
    while rows := connection.execute(
        "SELECT id, place, length FROM block WHERE id > ? ORDER BY id LIMIT ?", (last, _PAGE)
    ).fetchall():
        last = rows[-1][0]
        yield from rows


def _find_strays(layout: Layout, known: set[str]) -> Iterator[tuple[str, int]]:
    """Files that a publication moved into place and then did not live to commit."""
    for path in layout.files.glob("*/*"):
        name = f"files/{path.parent.name}/{path.name}"
        status = path.lstat()
        if name not in known and stat.S_ISREG(status.st_mode):  # what else somebody put there is not ours to judge
            yield name, status.st_size


class _Sweeper:
    """Removes rows in transactions of limited size, and files after their rows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rows = _ROWS_PER_TRANSACTION

    def run(self, plan: _Plan) -> None:
        self._remove_files([name for name, _ in plan.strays])
        inline = plan.inline
        while inline:
            inline = inline[self._step(partial(self._delete_inline, inline)) :]
        places = plan.places
        while places:
            done = self._step(partial(self._delete_places, places))
            self._remove_files([name for _, name, _ in places[:done]])
            places = places[done:]
        self._parts.database.checkpoint()

    def _step(self, delete: Callable[[sqlite3.Connection], int]) -> int:
        """Run one transaction; on a full disk again with fewer rows, for which there may be room in the log."""
        while True:
            try:
                with self._parts.database.write() as connection:
                    return delete(connection)
            except StoreFullError:
                if self._rows <= _FEWEST_ROWS:
                    raise
                self._rows //= 10
                self._parts.database.checkpoint()

    def _delete_inline(self, ids: Sequence[int], connection: sqlite3.Connection) -> int:
        batch = ids[: self._rows]
        connection.executemany("DELETE FROM block WHERE id = ?", [(block_id,) for block_id in batch])
        return len(batch)

    def _delete_places(self, places: Sequence[tuple[int, str, int]], connection: sqlite3.Connection) -> int:
        """Delete rows of files and of the blocks in them. Returns how many files are done with."""
        room = self._rows
        for done, (place_id, _, _) in enumerate(places):
            gone = connection.execute(
                "DELETE FROM block WHERE id IN (SELECT id FROM block WHERE place = ? LIMIT ?)", (place_id, room)
            ).rowcount
            room -= gone
            if room <= 0:
                return done
            connection.execute("DELETE FROM place WHERE id = ?", (place_id,))
            room -= 1
        return len(places)

    def _remove_files(self, names: Sequence[str]) -> None:
        for name in names:
            self._parts.disk.remove(self._parts.layout.folder / name)
