"""From the cache into the store's keeping: before a name relies on cached blocks, they are verified and become owned."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.storage.local.files.block_reading import StoredBlock, read_stored_block
from mlflow_ipfs.content.storage.local.files.open_publications import keeping_all
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.cache_rows import count_cache_changes, holds_blocks
from mlflow_ipfs.content.storage.local.index.index_rows import VALUES, select_many
from mlflow_ipfs.content.storage.local.reading.marks import Marker
from mlflow_ipfs.content.storage.local.reading.reader import LocalReader
from mlflow_ipfs.errors import IntegrityError, NotFoundError, StoreBusyError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_ATTEMPTS: Final = 5


@contextmanager
def promote(context: StoreContext, roots: Sequence[CID]) -> Iterator[sqlite3.Connection]:
    """A transaction in which the store owns all that it has below some roots, so that they may be named.

    Raises:
        IntegrityError: a node cannot be read, or a cached block is damaged.
        NotFoundError: a file is gone.
        StoreBusyError: others put so much into the cache meanwhile that it never could be looked through.
    """
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            seen = _promote(context, roots, stack)
            with context.database.write() as connection:
                if seen.still_holds(connection):
                    yield connection
                    return
    msg = f"the cache changed {_ATTEMPTS} times while {roots[0]} was to be named; try again"
    raise StoreBusyError(msg)


def find_needed(connection: sqlite3.Connection, marks: Marker) -> list[tuple[int, str]]:
    """Rows and names of cached files that hold something marked.

    What is published for a name is never left to the cache, so it had been missing when it was fetched.
    """
    if not holds_blocks(connection):
        return []
    rows = connection.execute(
        "SELECT b.id, p.id, p.name FROM block b JOIN place p ON p.id = b.place WHERE p.class = 'cache'"
    )
    return sorted({(place_id, name) for block_id, place_id, name in rows if block_id in marks})


def own_needed(context: StoreContext, places: Sequence[tuple[int, str]]) -> None:
    """Let the store own what ``find_needed`` found, unless it was evicted meanwhile."""
    if places:
        with context.database.write() as connection:
            for place_id, name in places:
                _take(connection, place_id, name)


class _Seen(NamedTuple):
    """What a look at the cache relied on.

    Attributes:
        changes: how often the cache had been changed.
        missing: multihashes of nodes that were not in the store, so that nobody knew what they need.
    """

    changes: int
    missing: Collection[bytes] = ()

    def still_holds(self, connection: sqlite3.Connection) -> bool:
        """What came after the look, into the cache or of the nodes, may lead to just what is in the cache."""
        if not holds_blocks(connection):
            return True
        return count_cache_changes(connection) == self.changes and not index_rows.all_known_among(
            connection, self.missing
        )


def _promote(context: StoreContext, roots: Sequence[CID], stack: ExitStack) -> _Seen:
    """Let the store own every cached file that holds a block below the roots. A root that is not here is left out.

    A cached file was synced when it came, as any other; its blocks below the roots are hashed once more.
    If there are any, nothing is evicted until the stack is left.

    Returns:
        What that relied on.
    """
    with context.database.read() as connection:
        changes = count_cache_changes(connection)
        if not holds_blocks(connection):
            return _Seen(changes)
    stack.enter_context(keeping_all(context.layout, context.disk, context.database))
    with context.database.snapshot() as connection, _marker(context) as marks:
        changes = count_cache_changes(connection)
        marks.take_fresh()
        known = [root for root in roots if index_rows.is_known(connection, root.multihash)]
        marks.mark(connection, known)
        places = _cached_places(connection, marks.take_fresh())
        for place_id, name in places:
            _verify(context, connection, marks, place_id, name)
    if places:
        with context.database.write() as connection:
            for place_id, name in places:
                _own(connection, place_id, name, roots)
    return _Seen(changes, {root.multihash for root in roots if root not in known} | marks.passed)


def _marker(context: StoreContext) -> Marker:
    """What is missing below a root can't be in the cache. That it is missing is for others to judge."""
    return Marker(context.layout, context.disk, LocalReader(context), pass_missing=True)


def _cached_places(connection: sqlite3.Connection, block_ids: Sequence[int]) -> list[tuple[int, str]]:
    query = (
        "SELECT DISTINCT p.id, p.name FROM block b JOIN place p ON p.id = b.place"  # noqa: S608 - fixed texts
        f" WHERE p.class = 'cache' AND b.id IN {VALUES}"
    )
    return sorted({(place_id, name) for place_id, name in select_many(connection, query, block_ids)})


def _verify(context: StoreContext, connection: sqlite3.Connection, marks: Marker, place_id: int, name: str) -> None:
    """Hash the blocks of a file that are marked."""
    rows = connection.execute(
        "SELECT id, multihash, offset, length, form FROM block WHERE place = ? ORDER BY offset", (place_id,)
    )
    try:
        descriptor = context.disk.open_to_read(context.layout.directory / name)
    except FileNotFoundError as error:
        msg = f"the cached file {name} is gone, so nothing was made to refer to what was in it: fetch it again"
        raise NotFoundError(msg) from error
    try:
        for stored in (StoredBlock(*row) for row in rows if row[0] in marks):
            cid, block = read_stored_block(context.disk, descriptor, stored)
            if not cid.matches(block):
                msg = f"the cached block {cid} in {name} is damaged, so nothing was made to refer to it: fetch it again"
                raise IntegrityError(msg)
    finally:
        context.disk.close(descriptor)


def _own(connection: sqlite3.Connection, place_id: int, name: str, roots: Sequence[CID]) -> None:
    if not _take(connection, place_id, name):
        msg = f"a part of {roots[0]} was dropped from the cache meanwhile: fetch it again"
        raise NotFoundError(msg)


def _take(connection: sqlite3.Connection, place_id: int, name: str) -> bool:
    owned = connection.execute(
        "UPDATE place SET class = ? WHERE id = ? AND name = ? AND condemned_at IS NULL",
        (index_rows.OWNED, place_id, name),
    )
    return bool(owned.rowcount)
