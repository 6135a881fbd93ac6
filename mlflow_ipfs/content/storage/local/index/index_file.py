"""An index that is only read, from outside: it is not changed, and nothing is written beside it without need."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES
from mlflow_ipfs.content.storage.local.index.schema import create_tables
from mlflow_ipfs.content.system.mounts import is_read_only_mount
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_VALUE: Final = 16 << 20  # bytes; a row that is longer is not read at all
_LARGEST: Final = 1 << 50  # bytes, and seconds since 1970
_LONGEST_NAME: Final = 240  # bytes; file systems take 255
_OTHERS: Final = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})  # SQLite's own
_Schema = dict[str, str]
_SOMETIMES: Final[_Schema] = {  # a gc's that was running, and that of a cache
    "named": "CREATE TABLE named (seq INTEGER PRIMARY KEY, cid BLOB NOT NULL)",
    "place_in_cache": "CREATE INDEX place_in_cache ON place (last_used) WHERE class = 'cache'",
}
# gc and du keep some bytes for each id up to the largest. Ids grow with all that a store has ever had, so many are unused.
_IDS: Final = f"id < 1 OR id > {1 << 28} + 1000 * (SELECT count(*) FROM block)"  # noqa: S608 - fixed
_NO_PLACE: Final = "place NOT IN (SELECT id FROM place)"
_MULTIHASH: Final = "substr({0}, 1, 2) = x'1220' AND length({0}) = 34"


def _number(*columns: str, low: int = 0, high: int = _LARGEST) -> str:
    """A condition that is true where one of the columns has no number, or none in the range."""
    return " OR ".join(f"typeof({name}) != 'integer' OR {name} NOT BETWEEN {low} AND {high}" for name in columns)


def _kind(kind: str, *columns: str) -> str:
    return " OR ".join(f"typeof({name}) != '{kind}'" for name in columns)


# What no row has; and none of a copy, which has no cache, and nothing that was being deleted (`BackupIndex.drop_unkept`):
# content that a name needs would go with those. Times of files and inodes may have any sign.
_IMPOSSIBLE: Final = {
    "place": (
        f"{_kind('text', 'name', 'kind', 'class')} OR kind NOT IN ('object', 'pack') OR class != 'owned'"
        f" OR length(CAST(name AS BLOB)) > {_LONGEST_NAME} OR {_number('id', 'size', 'last_used')}"
        f" OR {_kind('integer', 'inode', 'mtime_ns')} OR {_number('damaged', high=1)}"
        f" OR (condemned_at IS NOT NULL AND ({_number('condemned_at', low=1)}))"
    ),
    "block": (
        f"{_IDS} OR {_number('offset')} OR {_number('length', high=MAX_BLOCK_BYTES)} OR {_kind('blob', 'multihash')}"
        f" OR {_number('form', low=min(LeafEncoding), high=max(LeafEncoding))} OR (place IS NULL) = (data IS NULL)"
        f" OR (place IS NOT NULL AND ({_kind('integer', 'place')} OR {_NO_PLACE}))"
        f" OR (data IS NOT NULL AND ({_kind('blob', 'data')} OR length(data) != length OR offset != 0))"
    ),
    "pin": f"{_kind('text', 'owner', 'state')} OR state NOT IN ('pending', 'confirmed')",
    "ref": f"{_kind('text', 'name')} OR {_number('version')}",
    "entry": (
        f"{_kind('blob', 'root', 'parent', 'name')} OR {_number('size', 'dag_bytes')} OR {_kind('integer', 'mtime_ns')}"
    ),
    "frozen": _kind("blob", "root", "path"),
    "outbox": (
        f"{_kind('text', 'target', 'action', 'name')} OR {_number('created_at', 'attempts', 'next_attempt_at')}"
        f" OR (error IS NOT NULL AND {_kind('text', 'error')})"
    ),
    "session": f"{_kind('text', 'uuid')} OR {_number('start')}",
    "meta": _kind("text", "key", "value"),
}


def limit(connection: sqlite3.Connection) -> None:
    """Let no value and no expression in a foreign file take much memory."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def check_index(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse an index that no program of ours can have written.

    Args:
        connection: to it.
        path: what it is called in messages.

    Raises:
        StoreFormatError: it is none.
        sqlite3.DatabaseError: it can't be read.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ours:
        create_tables(ours, "")
        if (differing := _first_difference(_schema_of(ours), _schema_of(connection))) is not None:
            raise _refused(path, f"its table or index {differing!r:.100} is not as it must be")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise _refused(path, str(found))
    for table, condition in _IMPOSSIBLE.items():
        if connection.execute(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchone():  # noqa: S608 - fixed texts
            raise _refused(path, f"a row of its table {table!r} has a value that no {table} has")
    _check_cids(connection, path)


def _first_difference(ours: _Schema, theirs: _Schema) -> str | None:
    """A table or an index that is missing, has other rules than ours, or is none of ours.

    Rules matter as much as columns: with a ``UNIQUE ... ON CONFLICT IGNORE``, pins would be accepted and not kept.
    """
    known = ours | {name: sql for name, sql in _SOMETIMES.items() if name in theirs}
    foreign = [name for name in theirs if name not in known and name not in _OTHERS]
    return next((name for name, sql in known.items() if theirs.get(name) != sql), foreign[0] if foreign else None)


def _schema_of(connection: sqlite3.Connection) -> _Schema:
    """Tables and indexes by name: how each was made, without the layout. Those that SQLite adds by itself have no text."""
    rows = connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'index')")
    return {name: " ".join(sql.split()) for name, sql in rows}


def _check_cids(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse names that mean nothing, and hashes that nothing can be verified with."""
    hashes = f"SELECT multihash FROM block WHERE NOT ({_MULTIHASH.format('multihash')})"  # noqa: S608 - fixed texts
    roots = f"SELECT root FROM place WHERE root IS NOT NULL AND NOT ({_MULTIHASH.format('root')})"  # noqa: S608 - fixed texts
    queries = {"place": roots, "block": hashes} | {
        table.table: f"SELECT cid FROM {table.table}"  # noqa: S608 - names of ours
        for table in NAME_TABLES
    }
    for table, query in queries.items():
        prefix = b"\x01\x55" if table in {"place", "block"} else b""  # version and codec, which a multihash lacks
        for (value,) in connection.execute(query):
            try:
                if not isinstance(value, bytes):
                    raise _refused(path, f"a row of its table {table!r} has no CID")
                CID.from_bytes(prefix + value).check_hash()
            except (InvalidCIDError, InvalidDataError) as error:
                raise _refused(path, f"a row of its table {table!r} has no CID: {error}") from error


def _refused(path: Path, reason: str) -> StoreFormatError:
    return StoreFormatError(f"the index {path} is damaged, or was made by somebody else: {reason}")


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
