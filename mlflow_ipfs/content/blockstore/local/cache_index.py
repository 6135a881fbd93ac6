"""What is in the cache: files of class ``cache``, which may go at any time, the longest unused first.

What is in it counts as absent for those who publish, and before anything below a name would rely
on it, it is promoted (``promoting.py``). So eviction asks nobody but the leases (``leases.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

_INDEX: Final = "place_in_cache"
CACHED: Final = "class = 'cache' AND condemned_at IS NULL"


def make_cache_index(connection: sqlite3.Connection) -> None:
    """Let questions about the cache not look at every file. A store that never had a cache has no such index."""
    connection.execute(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON place (last_used) WHERE class = 'cache'")


def has_cache(connection: sqlite3.Connection) -> bool:
    """Tell whether anything was ever cached."""
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", (_INDEX,)).fetchone()
    return row is not None


def cached_bytes(connection: sqlite3.Connection) -> int:
    """The size of all files of the cache."""
    if not has_cache(connection):
        return 0
    size_bytes: int = connection.execute(f"SELECT coalesce(sum(size), 0) FROM place WHERE {CACHED}").fetchone()[0]  # noqa: S608 - a fixed text
    return size_bytes
