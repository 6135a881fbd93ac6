"""The tables of ``store.db``, format 1.

Times are whole seconds since 1970 unless the name ends in ``_ns``. The statements avoid newer SQLite features (STRICT,
RETURNING), because Python 3.11 can run with SQLite 3.34.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import StoreFormatError

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = 0x4D495046  # "MIPF"; `file store.db` prints it
SCHEMA_VERSION: Final = 1

_TABLES: Final = """
-- A file below the store's directory. An object is the whole content of one file, and `root` is the multihash of that
-- file's root. A pack is a CAR of small blocks and has no root. An object in quarantine has no root either: its blocks
-- are still read from it, each verified.
CREATE TABLE place (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('object', 'pack')),
    name TEXT NOT NULL UNIQUE,              -- path below the store's directory
    root BLOB UNIQUE,
    size INTEGER NOT NULL,
    class TEXT NOT NULL DEFAULT 'owned' CHECK (class IN ('owned', 'cache')),
    inode INTEGER NOT NULL,                 -- with size and mtime_ns the stamp: unchanged stamp, unchanged file
    mtime_ns INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    condemned_at INTEGER,                   -- NULL: in use; positive: deletable; negative: tombstoned
    damaged INTEGER NOT NULL DEFAULT 0      -- 1: a block in it is damaged, so it counts as absent for dedupe
);

-- A block: `length` bytes of its place at `offset`, or inline bytes. `form` says how the block is made from them.
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    multihash BLOB NOT NULL UNIQUE,
    place INTEGER REFERENCES place (id),
    data BLOB,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    form INTEGER NOT NULL,                  -- LeafEncoding
    CHECK ((place IS NULL) != (data IS NULL))
);
CREATE INDEX block_of_place ON block (place) WHERE place IS NOT NULL;

CREATE TABLE pin (
    owner TEXT NOT NULL,
    cid BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'confirmed')),
    PRIMARY KEY (owner, cid)
) WITHOUT ROWID;
CREATE INDEX pin_of_cid ON pin (cid);

CREATE TABLE ref (
    name TEXT PRIMARY KEY,
    cid BLOB NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;

-- One row for each file of mfs://. Directories have no rows. `parent` is '' or 'a/b', without outer slashes.
-- Names are BLOBs: they need not be UTF-8, and SQLite compares and orders them byte by byte.
CREATE TABLE entry (
    root BLOB NOT NULL,
    parent BLOB NOT NULL,
    name BLOB NOT NULL,
    cid BLOB NOT NULL,
    size INTEGER NOT NULL,
    dag_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (root, parent, name)
) WITHOUT ROWID;

CREATE TABLE frozen (
    root BLOB NOT NULL,
    path BLOB NOT NULL,
    cid BLOB NOT NULL,
    PRIMARY KEY (root, path, cid)
) WITHOUT ROWID;

-- What must still be sent to other nodes. Written in the publishing transaction. Every row is a gc root.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    action TEXT NOT NULL,
    cid BLOB NOT NULL,
    name TEXT NOT NULL DEFAULT '',          -- pin owner or ref
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL DEFAULT 0,
    error TEXT
);

-- Unused and empty. Sessions are the locked files in ``sessions/`` (``sessions.py``), and gc records its decisions in
-- `condemned_at`. The table exists because every store of format 1 has it.
CREATE TABLE session (
    uuid TEXT PRIMARY KEY,
    start INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
"""


def create_tables(connection: sqlite3.Connection, store_id: str) -> None:
    """Create every table, inside the caller's transaction."""
    for statement in _statements():
        connection.execute(statement)
    values = {"store_id": store_id, "created_at": str(int(time.time()))}
    connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", values.items())
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements() -> list[str]:
    """Return the script as single statements: ``executescript`` would commit the caller's transaction."""
    lines = (line.partition("--")[0].rstrip() for line in _TABLES.splitlines())
    return [statement for statement in "\n".join(line for line in lines if line).split(";") if statement.strip()]


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 for a database without tables.

    Raises:
        StoreFormatError: another program or a newer version wrote the database.
    """
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application_id, version) == (0, 0):
        return 0
    if application_id != APPLICATION_ID:
        msg = (
            f"{_file_of(connection)} belongs to another program (application_id {application_id:#x}): "
            "restore the store from a backup"
        )
        raise StoreFormatError(msg)
    if version > SCHEMA_VERSION:
        msg = (
            f"{_file_of(connection)} has schema version {version}, newer than {SCHEMA_VERSION}: "
            "upgrade mlflow-ipfs to open it"
        )
        newer = StoreFormatError(msg)
        newer.is_newer = True
        raise newer
    return version


def _file_of(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA database_list").fetchone()[2])


def stored_id(connection: sqlite3.Connection) -> str:
    """Return the store's id from ``store.db``.

    Raises:
        StoreFormatError: ``store.db`` has no id.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()
    if row is None:
        msg = f"{_file_of(connection)} has lost the store's id: restore the store from a backup"
        raise StoreFormatError(msg)
    return str(row[0])
