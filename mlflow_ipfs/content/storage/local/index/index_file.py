"""Read-only access to an index file that is not open as a store, such as one in a backup."""

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

_LONGEST_VALUE: Final = 16 << 20  # bytes; SQLite refuses to read a longer row
_LARGEST: Final = 1 << 50  # bytes, and seconds since 1970
_LONGEST_NAME: Final = 240  # bytes; file systems allow 255
_TIMEOUT_SECONDS: Final = 5.0  # how long to wait for another program that locks the file
_SQLITE_TABLES: Final = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})  # SQLite's own tables
_Schema = dict[str, str]
_OPTIONAL_SCHEMA: Final[_Schema] = {  # present while a gc runs, and in a store with a cache
    "named": "CREATE TABLE named (seq INTEGER PRIMARY KEY, cid BLOB NOT NULL)",
    "place_in_cache": "CREATE INDEX place_in_cache ON place (last_used) WHERE class = 'cache'",
}
# gc and du allocate some bytes for each id up to the largest. Ids grow with every block that was ever stored, so many
# are unused.
_INVALID_ID: Final = f"id < 1 OR id > {1 << 28} + 1000 * (SELECT count(*) FROM block)"  # noqa: S608 - fixed
_UNKNOWN_PLACE: Final = "place NOT IN (SELECT id FROM place)"
_IS_SHA256: Final = "substr({0}, 1, 2) = x'1220' AND length({0}) = 34"


def _not_integer(*columns: str, low: int = 0, high: int = _LARGEST) -> str:
    """Return an SQL condition that is true if a column has no integer, or one outside the range."""
    return " OR ".join(f"typeof({name}) != 'integer' OR {name} NOT BETWEEN {low} AND {high}" for name in columns)


def _not_of_type(kind: str, *columns: str) -> str:
    """Return an SQL condition that is true if a column's value has another type than ``kind``."""
    return " OR ".join(f"typeof({name}) != '{kind}'" for name in columns)


# Conditions that match no row of a valid copy. A copy has no cache and no tombstoned files (`BackupIndex.drop_unkept`):
# content that a name needs would be deleted with them. File times and inodes may be negative.
_INVALID_ROWS: Final = {
    "place": (
        f"{_not_of_type('text', 'name', 'kind', 'class')} OR kind NOT IN ('object', 'pack') OR class != 'owned'"
        f" OR length(CAST(name AS BLOB)) > {_LONGEST_NAME} OR {_not_integer('id', 'size', 'last_used')}"
        f" OR {_not_of_type('integer', 'inode', 'mtime_ns')} OR {_not_integer('damaged', high=1)}"
        f" OR (condemned_at IS NOT NULL AND ({_not_integer('condemned_at', low=1)}))"
    ),
    "block": (
        f"{_INVALID_ID} OR {_not_integer('offset')} OR {_not_integer('length', high=MAX_BLOCK_BYTES)}"
        f" OR {_not_of_type('blob', 'multihash')}"
        f" OR {_not_integer('form', low=min(LeafEncoding), high=max(LeafEncoding))} OR (place IS NULL) = (data IS NULL)"
        f" OR (place IS NOT NULL AND ({_not_of_type('integer', 'place')} OR {_UNKNOWN_PLACE}))"
        f" OR (data IS NOT NULL AND ({_not_of_type('blob', 'data')} OR length(data) != length OR offset != 0))"
    ),
    "pin": f"{_not_of_type('text', 'owner', 'state')} OR state NOT IN ('pending', 'confirmed')",
    "ref": f"{_not_of_type('text', 'name')} OR {_not_integer('version')}",
    "entry": (
        f"{_not_of_type('blob', 'root', 'parent', 'name')} OR {_not_integer('size', 'dag_bytes')}"
        f" OR {_not_of_type('integer', 'mtime_ns')}"
    ),
    "frozen": _not_of_type("blob", "root", "path"),
    "outbox": (
        f"{_not_of_type('text', 'target', 'action', 'name')}"
        f" OR {_not_integer('created_at', 'attempts', 'next_attempt_at')}"
        f" OR (error IS NOT NULL AND {_not_of_type('text', 'error')})"
    ),
    "session": f"{_not_of_type('text', 'uuid')} OR {_not_integer('start')}",
    "meta": _not_of_type("text", "key", "value"),
}


def limit(connection: sqlite3.Connection) -> None:
    """Limit the memory that a value or an expression in an untrusted file can take."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def check_index(connection: sqlite3.Connection, path: Path) -> None:
    """Raise if the index cannot have been written by this package.

    Args:
        connection: a connection to the index.
        path: the path that error messages name.

    Raises:
        StoreFormatError: the index is damaged or was written by another program.
        sqlite3.DatabaseError: the index cannot be read.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as expected:
        create_tables(expected, "")
        if (difference := _first_difference(_schema_of(expected), _schema_of(connection))) is not None:
            raise _invalid_index(path, f"its table or index {difference!r:.100} has another definition")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise _invalid_index(path, str(found))
    for table, condition in _INVALID_ROWS.items():
        if connection.execute(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchone():  # noqa: S608 - fixed texts
            raise _invalid_index(path, f"a row of its table {table!r} has an invalid value")
    _check_cids(connection, path)


def _first_difference(expected: _Schema, found: _Schema) -> str | None:
    """Return a table or index that is missing, is defined differently, or is not part of the schema.

    Constraints matter as much as columns: with a ``UNIQUE ... ON CONFLICT IGNORE``, SQLite would accept a pin and
    not store it.
    """
    allowed = expected | {name: sql for name, sql in _OPTIONAL_SCHEMA.items() if name in found}
    foreign = [name for name in found if name not in allowed and name not in _SQLITE_TABLES]
    return next((name for name, sql in allowed.items() if found.get(name) != sql), foreign[0] if foreign else None)


def _schema_of(connection: sqlite3.Connection) -> _Schema:
    """Return the SQL of each table and index by name, with whitespace normalised. Automatic indexes have no SQL."""
    rows = connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'index')")
    return {name: " ".join(sql.split()) for name, sql in rows}


def _check_cids(connection: sqlite3.Connection, path: Path) -> None:
    """Raise if a name has an invalid CID, or a hash has a form that cannot verify content."""
    hashes = f"SELECT multihash FROM block WHERE NOT ({_IS_SHA256.format('multihash')})"  # noqa: S608 - fixed texts
    roots = f"SELECT root FROM place WHERE root IS NOT NULL AND NOT ({_IS_SHA256.format('root')})"  # noqa: S608 - fixed texts
    queries = {"place": roots, "block": hashes} | {
        table.table: f"SELECT cid FROM {table.table}"  # noqa: S608 - fixed texts
        for table in NAME_TABLES
    }
    for table, query in queries.items():
        prefix = b"\x01\x55" if table in {"place", "block"} else b""  # version and codec, which a multihash lacks
        for (value,) in connection.execute(query):
            try:
                if not isinstance(value, bytes):
                    raise _invalid_index(path, f"a row of its table {table!r} has an invalid CID")
                CID.from_bytes(prefix + value).check_hash()
            except (InvalidCIDError, InvalidDataError) as error:
                raise _invalid_index(path, f"a row of its table {table!r} has an invalid CID: {error}") from error


def _invalid_index(path: Path, reason: str) -> StoreFormatError:
    msg = f"the index {path} is damaged, or mlflow-ipfs did not write it: {reason}; use another backup"
    return StoreFormatError(msg)


def open_index_file(path: Path, *, is_live: bool = False) -> sqlite3.Connection:
    """Open an index for reading only.

    Args:
        path: the database. Its log, if any, is in the same directory.
        is_live: whether other programs may write to the index at the same time.

    Raises:
        sqlite3.DatabaseError: the file does not exist or is not a database. Other damage is found only when a table
            is read.
    """
    # In "immutable" mode SQLite creates no files next to the database, but it also ignores the log.
    is_immutable = is_read_only_mount(path.parent) if is_live else not _has_log(path)
    query = "mode=ro&immutable=1" if is_immutable else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path))}?{query}", uri=True, timeout=_TIMEOUT_SECONDS, isolation_level=None)


def _has_log(path: Path) -> bool:
    """Return whether a log has changes: its writer was killed, or a backup was used as a store."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def reading_index_file(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an index that no process writes to, for the length of a ``with``.

    Raises:
        StoreFormatError: the index cannot be read.
    """
    try:
        with closing(open_index_file(path)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise unreadable_index(path, error) from error


def unreadable_index(path: Path, error: sqlite3.Error) -> StoreFormatError:
    """Return the error for an index that SQLite cannot read."""
    msg = (
        f"the index {path} cannot be read: {error}. Use another backup; for a store, run `mlflow-ipfs doctor --rebuild`"
    )
    return StoreFormatError(msg)
