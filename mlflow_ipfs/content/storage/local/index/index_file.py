"""An index that is only read, from outside: it is not changed, and nothing is written beside it without need."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlflow_ipfs.content.system.mounts import is_read_only_mount
from mlflow_ipfs.errors import StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TIMEOUT_SECONDS: Final = 5.0  # for a program that has locked it


def open_index_file(path: Path, *, is_live: bool = False) -> sqlite3.Connection:
    """Open an index for reading alone.

    Args:
        path: the database; its log, if there is one, lies beside it.
        is_live: whether programs may write to it at the same time.

    Raises:
        sqlite3.DatabaseError: it is not there, or is no database. Much damage shows only when a table is read.
    """
    # "immutable" says that nobody writes: then SQLite makes no files beside it, but does not look into its log either.
    is_immutable = is_read_only_mount(path.parent) if is_live else not _has_log(path)
    query = "mode=ro&immutable=1" if is_immutable else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path))}?{query}", uri=True, timeout=_TIMEOUT_SECONDS, isolation_level=None)


def _has_log(path: Path) -> bool:
    """Somebody was killed while he wrote, or has used a copy as a store."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def reading_index_file(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an index that nobody writes to, for the length of a ``with``.

    Raises:
        StoreFormatError: it can't be read.
    """
    try:
        with closing(open_index_file(path)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise unreadable_index(path, error) from error


def unreadable_index(path: Path, error: sqlite3.Error) -> StoreFormatError:
    """The error for an index that SQLite can't read."""
    return StoreFormatError(f"the index {path} can't be read: {error}")
