"""What is in the cache: files of class ``cache``, which may go at any time, the longest unused first.

What is in it counts as absent for those who publish, and before anything below a name would rely
on it, it is promote (``promoting.py``). So eviction asks nobody but the
leases (``leases.py``), and those who just name what they have found (``open_publications.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

_INDEX: Final = "place_in_cache"
CHANGES: Final = "cache_changes"  # in `meta`
CACHED: Final = "class = 'cache' AND condemned_at IS NULL"
_HOLDS_BLOCKS: Final = "class = 'cache' AND EXISTS (SELECT 1 FROM block WHERE block.place = place.id)"


def note_cache_change(connection: sqlite3.Connection) -> None:
    """Count a transaction that puts rows into the cache. The first one makes the index for questions about it."""
    if not count_cache_changes(connection):
        connection.execute(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON place (last_used) WHERE class = 'cache'")
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (CHANGES,)
    )


def count_cache_changes(connection: sqlite3.Connection) -> int:
    """How many transactions have put rows into the cache; 0 in a store that never had one."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (CHANGES,)).fetchone()
    return int(row[0]) if row else 0


def holds_blocks(connection: sqlite3.Connection) -> bool:
    """Tell whether any block is nowhere but in the cache. Quick where nothing is cached."""
    if not count_cache_changes(connection):
        return False
    return connection.execute(f"SELECT 1 FROM place WHERE {_HOLDS_BLOCKS} LIMIT 1").fetchone() is not None  # noqa: S608 - a fixed text


def cached_bytes(connection: sqlite3.Connection) -> int:
    """The size of all files of the cache."""
    if not count_cache_changes(connection):
        return 0
    size_bytes: int = connection.execute(f"SELECT coalesce(sum(size), 0) FROM place WHERE {CACHED}").fetchone()[0]  # noqa: S608 - a fixed text
    return size_bytes
