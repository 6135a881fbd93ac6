"""Promotion of cached blocks: before a name relies on them, they are verified and become owned by the store."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.cid import CID, RAW
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

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_ATTEMPTS: Final = 5


@contextmanager
def promote(context: StoreContext, roots: Sequence[CID]) -> Iterator[sqlite3.Connection]:
    """Open a transaction in which the store owns all blocks that it has below some roots, so that they can be named.

    Raises:
        IntegrityError: a node cannot be read, or a cached block is damaged.
        NotFoundError: a cached file is missing, or was evicted in the meantime.
        StoreBusyError: the cache changed during every attempt to check it.
    """
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            checked = _promote(context, roots, stack)
            with context.database.write() as connection:
                if checked.is_current(connection):
                    yield connection
                    return
    subject = roots[0] if roots else "the publication"  # a publication may only remove names
    msg = f"the names of {subject} were not changed: the cache changed during each of {_ATTEMPTS} attempts. Try again"
    raise StoreBusyError(msg)


def find_needed(connection: sqlite3.Connection, marks: Marker) -> list[tuple[int, str]]:
    """Return the ids and names of cached files that hold a marked block.

    A publication that adds a name promotes every cached block that it needs. So these blocks were missing when the name
    was added, and were fetched into the cache later.
    """
    if not holds_blocks(connection):
        return []
    rows = connection.execute(
        "SELECT b.id, p.id, p.name FROM block b JOIN place p ON p.id = b.place WHERE p.class = 'cache'"
    )
    return sorted({(place_id, name) for block_id, place_id, name in rows if block_id in marks})


def own_needed(context: StoreContext, places: Sequence[tuple[int, str]]) -> None:
    """Let the store own the files that ``find_needed`` found, unless they were evicted in the meantime."""
    if places:
        with context.database.write() as connection:
            for place_id, name in places:
                _set_owned(connection, place_id, name)


class _CheckedState(NamedTuple):
    """The state of the store that a check of the cache relied on.

    Attributes:
        changes: how often the cache had changed.
        missing: multihashes of nodes that were not in the store, so their links were unknown.
    """

    changes: int
    missing: Collection[bytes] = ()

    def is_current(self, connection: sqlite3.Connection) -> bool:
        """Return whether the check is still valid.

        New rows in the cache invalidate it, and so do new nodes that were missing: through them a root may need other
        cached blocks.
        """
        if not holds_blocks(connection):
            return True
        return count_cache_changes(connection) == self.changes and not index_rows.all_known_among(
            connection, self.missing
        )


def _promote(context: StoreContext, roots: Sequence[CID], stack: ExitStack) -> _CheckedState:
    """Let the store own every cached file that holds a block below the roots. Roots without a row are left out.

    A cached file is already durable: it was synced when it was published. Its blocks below the roots are hashed again.
    If the cache holds blocks, nothing is evicted until the stack is closed.

    Returns:
        The state that the check relied on.
    """
    with context.database.read() as connection:
        changes = count_cache_changes(connection)
        if not holds_blocks(connection):
            return _CheckedState(changes)
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
    return _CheckedState(changes, {root.multihash for root in roots if root not in known} | marks.passed)


def _marker(context: StoreContext) -> Marker:
    """Return a marker that passes over missing nodes: a missing node is not in the cache, and is not an error here."""
    return Marker(context.layout, context.disk, LocalReader(context), pass_missing=True)


def _cached_places(connection: sqlite3.Connection, block_ids: Sequence[int]) -> list[tuple[int, str]]:
    """Return the ids and names of the cached files that hold any of the blocks."""
    query = (
        "SELECT DISTINCT p.id, p.name FROM block b JOIN place p ON p.id = b.place"  # noqa: S608 - fixed texts
        f" WHERE p.class = 'cache' AND b.id IN {VALUES}"
    )
    return sorted({(place_id, name) for place_id, name in select_many(connection, query, block_ids)})


def _verify(context: StoreContext, connection: sqlite3.Connection, marks: Marker, place_id: int, name: str) -> None:
    """Hash the marked blocks of a cached file, which has at least one. Raise if one is damaged or missing."""
    rows = connection.execute(
        "SELECT id, multihash, offset, length, form FROM block WHERE place = ? ORDER BY offset", (place_id,)
    )
    try:
        descriptor = context.disk.open_to_read(context.layout.directory / name)
    except FileNotFoundError as error:
        cid = next(CID(1, RAW, row[1]) for row in rows if row[0] in marks)
        msg = f"the cached block {cid} is missing, so no name was added: fetch the content again"
        raise NotFoundError(msg) from error
    try:
        for stored in (StoredBlock(*row) for row in rows if row[0] in marks):
            cid, block = read_stored_block(context.disk, descriptor, stored)
            if not cid.matches(block):
                msg = f"the cached block {cid} is damaged, so no name was added: fetch the content again"
                raise IntegrityError(msg)
    finally:
        context.disk.close(descriptor)


def _own(connection: sqlite3.Connection, place_id: int, name: str, roots: Sequence[CID]) -> None:
    """Let the store own a cached file. Raise if it was evicted in the meantime."""
    if not _set_owned(connection, place_id, name):
        msg = f"a part of {roots[0]} was evicted from the cache, so no name was added: fetch the content again"
        raise NotFoundError(msg)


def _set_owned(connection: sqlite3.Connection, place_id: int, name: str) -> bool:
    """Let the store own a cached file. Return whether the file still exists."""
    updated = connection.execute(
        "UPDATE place SET class = ? WHERE id = ? AND name = ? AND condemned_at IS NULL",
        (index_rows.OWNED, place_id, name),
    )
    return bool(updated.rowcount)
