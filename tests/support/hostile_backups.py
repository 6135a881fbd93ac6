"""Ways to corrupt a backup: absurd values in rows and in the manifest, changed schemas, and odd files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.storage.base import Changes
from support.clones import publish_pack
from support.storages import publish_blocks, publish_file

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage

VALUES: Final[tuple[Any, ...]] = (
    None, -1, 0, 1, 7, 1 << 20, 1 << 31, 1 << 40, 1 << 53, 1 << 62, (1 << 63) - 1, -(1 << 63), 1.5, 1e308,
    "many", "", "12", "../../outside", "files/00/../../outside", "quarantine/..", "files/00/" + "x" * 300, "\x1b[2J",
    b"", b"\x00", b"\xff" * 40, b"\x12\x20" + b"\0" * 32, b"\x01\x55\x12\x20" + b"\0" * 32, b"\x00" * 5000,
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    None, -1, 1 << 62, 10**400, 1e308, True, "many", "\x1b[2J", [], {}, {"a": [1]}, "../mlflow.db", "mlflow.dump",
)  # fmt: skip
TABLES: Final = ("place", "block", "pin", "ref", "entry", "frozen", "outbox", "session", "meta")
SCHEMAS: Final = (
    "CREATE TABLE mine (a)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE TRIGGER mine AFTER UPDATE ON place BEGIN DELETE FROM block; END",
    "CREATE TRIGGER mine AFTER UPDATE ON place BEGIN UPDATE place SET name = '../../outside/made'; END",
    "CREATE VIRTUAL TABLE mine USING fts5(a)",
    "CREATE INDEX mine ON meta (hex(zeroblob(length(value) + 20000000)))",
    "ALTER TABLE place ADD COLUMN more TEXT",
    "ALTER TABLE place ADD COLUMN more TEXT AS (hex(zeroblob(20000000)))",
    "ALTER TABLE block RENAME TO other",
    "ALTER TABLE block DROP COLUMN form",
    "DROP TABLE pin",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 5",
    "DELETE FROM meta",
)

_original_sql: dict[str, str] = {}  # the CREATE TABLE statements before a change


def fill(storage: LocalStorage) -> None:
    """Store content and names of every kind."""
    publish_pack(storage)
    [small] = publish_blocks(storage, b"small")
    file = publish_file(storage, os.urandom(30_000))
    publish_file(storage, os.urandom(5_000), wrapped=True)
    storage.refs.set("latest", file, expected_version=0)
    with storage.publish() as publication:
        entry, frozen = MfsEntry("mlflow", "a/file", small, 5, 5, 1), Frozen("mlflow", "a", small)
        publication.commit(Changes(entries=[entry], frozen=[frozen]))


def spoil(directory: Path, chance: random.Random) -> str:
    """Corrupt one part of a backup. Return a description of the change."""
    kinds = (spoil_value, spoil_value, spoil_value, drop_row, spoil_schema, spoil_file, spoil_file, spoil_manifest)
    spoiler = chance.choice(kinds)
    path = directory / ("backup.json" if spoiler is spoil_manifest else "store/store.db")
    if spoiler is not spoil_file and (path.is_symlink() or not path.is_file()):
        return "nothing"  # an earlier change replaced the file; reading a pipe would block
    return spoiler(directory, chance)


def spoil_value(directory: Path, chance: random.Random) -> str:
    """Put an absurd value into a row, regardless of the constraints of the table."""
    table, value = chance.choice(TABLES), chance.choice(VALUES)
    with suppress(sqlite3.Error), closing(_open(directory)) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if not columns:
            return "nothing"  # an earlier change dropped the table
        column = chance.choice(columns)
        _set_not_null(connection, table, keep=False)
        with suppress(sqlite3.Error):  # UNIQUE and PRIMARY KEY still apply
            count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            skipped = chance.randrange(max(count, 1))
            rows = connection.execute(f"SELECT {column} FROM {table} LIMIT 1 OFFSET {skipped}").fetchall()
            if rows:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} IS ?", (value, rows[0][0]))
        _set_not_null(connection, table, keep=True)
        return f"{table}.{column} = {value!r:.50}"
    return "nothing"


def _set_not_null(connection: sqlite3.Connection, table: str, *, keep: bool) -> None:
    """Remove the NOT NULL constraints of a table, or restore them."""
    [(sql,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    _original_sql.setdefault(table, sql)
    changed = _original_sql[table] if keep else sql.replace(" NOT NULL", "")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (changed, table))
    version = connection.execute("PRAGMA schema_version").fetchone()[0]
    connection.execute(f"PRAGMA schema_version = {version + 1}")  # so that the schema is read again
    connection.execute("PRAGMA writable_schema = RESET")


def _open(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(directory / "store/store.db", isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def drop_row(directory: Path, chance: random.Random) -> str:
    """Delete a third of the rows of a table."""
    table = chance.choice(TABLES)
    with suppress(sqlite3.Error), closing(_open(directory)) as connection:
        connection.execute(f"DELETE FROM {table} WHERE abs(random()) % 3 = 0")
    return f"rows of {table} are gone"


def spoil_schema(directory: Path, chance: random.Random) -> str:
    """Change the tables of the index, or add triggers and other code."""
    statement = chance.choice(SCHEMAS)
    with suppress(sqlite3.Error), closing(_open(directory)) as connection:
        connection.execute(statement)
    return statement


def spoil_file(directory: Path, chance: random.Random) -> str:
    """Change or replace a file of the backup."""
    path = chance.choice(sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()))
    path.chmod(0o644)
    data = path.read_bytes()
    change = chance.choice(("cut", "longer", "flip", "flip", "noise", "gone", "directory", "link", "pipe", "sparse"))
    if change == "cut":
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
    elif change == "longer":
        path.write_bytes(data + chance.randbytes(5000))
    elif change == "flip" and data:
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 20, 500))):
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
    elif change == "noise":
        path.write_bytes(chance.randbytes(len(data)))
    elif change == "sparse":
        os.truncate(path, 40 << 20)
    else:
        path.unlink()
    if change == "directory":
        path.mkdir()
    elif change == "link":
        path.symlink_to(directory.parent / "outside/secret")
    elif change == "pipe":
        os.mkfifo(path)
    return f"{path.relative_to(directory)}: {change}"


def spoil_manifest(directory: Path, chance: random.Random) -> str:
    """Put an absurd value into the manifest."""
    path = directory / "backup.json"
    with suppress(ValueError, OSError):
        fields = json.loads(path.read_bytes())
        name = chance.choice(sorted(fields))
        fields[name] = chance.choice(ODD)
        path.write_text(json.dumps(fields))
        return f"backup.json: {name} = {fields[name]!r:.50}"
    return "nothing"


def copy_of(backup: Path, directory: Path) -> Path:
    """Copy a backup for corruption, next to a directory outside of it that must not be accessed. Return the copy."""
    shutil.copytree(backup, directory / "backup", symlinks=True)
    (directory / "outside").mkdir()
    (directory / "outside/secret").write_text("secret")
    return directory / "backup"
