"""The cache of a local store: publications into it, and eviction from it."""

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

_logger = logging.getLogger(__name__)


class CachePublication(LocalPublication):
    """One publication into the cache of a local store. Its blocks may be evicted as soon as the cache needs room."""

    _class = index_rows.CACHE

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then evict what exceeds the limit. Return how many bytes were new.

        Raises:
            ValueError: ``changes`` is not empty. Content in the cache cannot have a name.
        """
        if changes not in (None, Changes()):
            msg = "a publication into the cache takes no names: publish without in_cache to name content"
            raise ValueError(msg)
        new_bytes = super().commit()
        evict(self._context, self._context.cache_bytes, spare={file.place_id for file in self._files})
        return new_bytes


class Evicted(NamedTuple):
    """What was evicted from the cache, or would be."""

    files: int = 0
    size_bytes: int = 0
    blocks: int = 0  # counted only by a dry run


def evict(
    context: StoreContext, limit_bytes: int, *, spare: Collection[int | None] = (), dry_run: bool = False
) -> Evicted:
    """Evict files from the cache, the longest unused first, until its size is at most a limit.

    Files that a process may be reading stay.

    Args:
        context: the store.
        limit_bytes: how large the cache may be afterwards.
        spare: ids of files that must stay.
        dry_run: only report what would be evicted if no process were reading any of it.
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
        if place_id not in spare and (dry_run or _tombstone(context, place_id, name)):
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


def _tombstone(context: StoreContext, place_id: int, name: str) -> bool:
    """Tombstone a cached file, unless it is leased. Return whether it was tombstoned. The sweeper deletes it later."""
    path = context.layout.directory / name
    descriptor = None
    try:
        with context.database.write() as connection:
            if oldest_open(context.layout) == KEEPS_ALL:  # a process is naming existing content, perhaps this file
                return False
            descriptor = lock_against_leases(path)
            if descriptor is None and path.exists():
                _logger.debug("%s stays in the cache: a process holds a lease on it", path)
                return False
            updated = connection.execute(
                f"UPDATE place SET condemned_at = -1 WHERE id = ? AND name = ? AND {CACHED}",  # noqa: S608 - a fixed text
                (place_id, name),
            )
        if updated.rowcount:
            _logger.debug("%s is evicted from the cache", path)
        return bool(updated.rowcount)
    finally:
        if descriptor is not None:
            os.close(descriptor)  # after the commit: a process that then gets a lease sees the tombstone
