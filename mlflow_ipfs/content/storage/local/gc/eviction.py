"""Making room in the cache."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local.files.leases import lock_against_leases
from mlflow_ipfs.content.storage.local.files.open_publications import KEEPS_ALL, oldest_open
from mlflow_ipfs.content.storage.local.gc.sweeping import Sweeper
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.cache_rows import CACHED, cached_bytes
from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext


class CachePublication(LocalPublication):
    """One publish into the cache of a local store: its blocks stay only as long as the cache has room for them."""

    _class = index_rows.CACHE

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then evict what exceeds the cache's size. Return how many bytes were new.

        Raises:
            ValueError: the changes have names. What is in the cache can have no name.
        """
        if changes not in (None, Changes()):
            msg = "what is put into the cache can have no name"
            raise ValueError(msg)
        new_bytes = super().commit()
        evict(self._context, self._context.cache_bytes, spare={file.place_id for file in self._files})
        return new_bytes


_logger = logging.getLogger(__name__)


class Evicted(NamedTuple):
    """What went out of the cache, or would."""

    files: int = 0
    size_bytes: int = 0
    blocks: int = 0  # counted by a dry run only


def evict(
    context: StoreContext, limit_bytes: int, *, spare: Collection[int | None] = (), dry_run: bool = False
) -> Evicted:
    """Drop files of the cache until no more than a limit is left, but none that a process may be reading.

    Args:
        context: the store.
        limit_bytes: how much may stay.
        spare: rows of files to leave alone.
        dry_run: only say what would go, if no process reads any of it.
    """
    with context.database.read() as connection:
        excess = cached_bytes(connection) - limit_bytes
        if excess <= 0 or oldest_open(context.layout) == KEEPS_ALL:
            return Evicted()
        rows = connection.execute(
            f"SELECT id, name, size FROM place WHERE {CACHED} ORDER BY last_used, id"  # noqa: S608 - a fixed text
        ).fetchall()
    files = freed = blocks = 0
    for place_id, name, size_bytes in rows:
        if freed >= excess:
            break
        if place_id not in spare and (dry_run or _doom(context, place_id, name)):
            files += 1
            freed += size_bytes
            blocks += _count_blocks(context, place_id) if dry_run else 0
    if not dry_run:
        Sweeper(context).run()
    return Evicted(files, freed, blocks)


def _count_blocks(context: StoreContext, place_id: int) -> int:
    with context.database.read() as connection:
        blocks: int = connection.execute("SELECT count(*) FROM block WHERE place = ?", (place_id,)).fetchone()[0]
    return blocks


def _doom(context: StoreContext, place_id: int, name: str) -> bool:
    """Let nobody find a file any more, unless it is leased. The sweeper deletes it."""
    path = context.layout.directory / name
    descriptor = None
    try:
        with context.database.write() as connection:
            if oldest_open(context.layout) == KEEPS_ALL:  # somebody names what he has found: that may be here
                return False
            descriptor = lock_against_leases(path)
            if descriptor is None and path.exists():
                _logger.debug("%s stays in the cache: a process has a lease of it", path)
                return False
            doomed = connection.execute(
                f"UPDATE place SET condemned_at = -1 WHERE id = ? AND name = ? AND {CACHED}",  # noqa: S608 - a fixed text
                (place_id, name),
            )
        if doomed.rowcount:
            _logger.debug("%s leaves the cache", path)
        return bool(doomed.rowcount)
    finally:
        if descriptor is not None:
            os.close(descriptor)  # only now: whoever gets a lease sees that the file is doomed
