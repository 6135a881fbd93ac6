"""Index rows of the cache: files of class ``cache``, which gc may evict at any time, least recently used first.

Cached blocks count as absent for publications. Before a name relies on a cached file, the file is promoted
(``promotion.py``). Eviction therefore checks only the leases (``leases.py``) and the publications that name content
which already exists in the store (``open_publications.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

_INDEX: Final = "place_in_cache"
CHANGES: Final = "cache_changes"  # key in the table `meta`
CACHED: Final = "class = 'cache' AND condemned_at IS NULL"
_HOLDS_BLOCKS: Final = "class = 'cache' AND EXISTS (SELECT 1 FROM block WHERE block.place = place.id)"


def record_cache_change(connection: sqlite3.Connection) -> None:
    """Count a transaction that adds rows to the cache. The first one also creates the index for queries about it."""
    if not count_cache_changes(connection):
        connection.execute(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON place (last_used) WHERE class = 'cache'")
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (CHANGES,)
    )


def count_cache_changes(connection: sqlite3.Connection) -> int:
    """Return how many transactions have added rows to the cache; 0 if the store never had a cache."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (CHANGES,)).fetchone()
    return int(row[0]) if row else 0


def holds_blocks(connection: sqlite3.Connection) -> bool:
    """Return whether any block is stored only in the cache. Fast if nothing was ever cached."""
    if not count_cache_changes(connection):
        return False
    return connection.execute(f"SELECT 1 FROM place WHERE {_HOLDS_BLOCKS} LIMIT 1").fetchone() is not None  # noqa: S608 - a fixed text


def cached_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of all files of the cache, in bytes."""
    if not count_cache_changes(connection):
        return 0
    size_bytes: int = connection.execute(f"SELECT coalesce(sum(size), 0) FROM place WHERE {CACHED}").fetchone()[0]  # noqa: S608 - a fixed text
    return size_bytes
