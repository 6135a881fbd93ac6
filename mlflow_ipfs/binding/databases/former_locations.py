"""The table of rows whose artifacts were taken in, with the places where the artifacts were before.

The table is in MLflow's database, next to MLflow's own tables, so that it changes in the same transaction as the artifact
locations. `mlflow db upgrade` does not change it. ``adopt`` reads the table to continue, and to remove the old files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import OperationalError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from sqlalchemy import Connection, Engine

    from mlflow_ipfs.content.cid import CID

TABLE: Final = "mlflow_ipfs_adopted"
_BATCH: Final = 500  # rows of one statement, below SQLite's limit of parameters

_metadata = sqlalchemy.MetaData()  # separate from MLflow's, because MLflow checks that all tables of its own exist
_table = sqlalchemy.Table(
    TABLE,
    _metadata,
    sqlalchemy.Column("row_table", sqlalchemy.String(32), primary_key=True),
    sqlalchemy.Column("row_key", sqlalchemy.String(64), primary_key=True),
    sqlalchemy.Column("location", sqlalchemy.Text, nullable=False),
    sqlalchemy.Column("place", sqlalchemy.Text, nullable=False),
    sqlalchemy.Column("fingerprint", sqlalchemy.String(64), nullable=False),
    sqlalchemy.Column("store_id", sqlalchemy.String(64), nullable=False),
    # The columns below are missing in tables of the first development versions.
    sqlalchemy.Column("marks", sqlalchemy.Text),
    sqlalchemy.Column("stored", sqlalchemy.Text),
    sqlalchemy.Column("is_unfinished", sqlalchemy.Integer),
)


@dataclass(frozen=True, slots=True)
class FormerLocation:
    """The location of a row before its artifacts were taken in.

    Attributes:
        table: the table of the row.
        key: the id of the run, logged model or trace.
        location: the artifact location that the row had.
        place: the directory or URI from which the files were read. It differs from ``location`` if that was relative, or
            named files behind a server.
        fingerprint: ``Listing.fingerprint`` of the files when they were compared with the store.
        store_id: the id of the store.
        marks: ``SourceFile.mark`` of every file that was in the place when it was taken in, now or in an earlier pass.
        stored: ``stored_mark`` of every file as it was taken in: clients have not changed a file that still has its mark.
        is_unfinished: whether a program could still write to the place when the row was taken in.
    """

    table: str
    key: str
    location: str
    place: str
    fingerprint: str
    store_id: str
    marks: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()
    is_unfinished: bool = False


def stored_mark(path: str, cid: CID) -> str:
    """Return a short hash of a file in the store: its path below the row's artifacts, and its content."""
    return hashlib.sha256(f"{path}\0{cid}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def create_table(engine: Engine) -> None:
    """Create the table, or its new columns, if they are missing. Safe with concurrent processes."""
    try:
        _metadata.create_all(engine)
    except (OperationalError, ProgrammingError):
        if not sqlalchemy.inspect(engine).has_table(TABLE):
            raise
    for column in _missing_columns(engine):
        kind = column.type.compile(engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text(f"ALTER TABLE {TABLE} ADD COLUMN {column.name} {kind}"))
        except (OperationalError, ProgrammingError):
            if column in _missing_columns(engine):
                raise


def _missing_columns(bind: Engine | Connection) -> list[sqlalchemy.Column[Any]]:
    present = {column["name"] for column in sqlalchemy.inspect(bind).get_columns(TABLE)}
    return [column for column in _table.c if column.name not in present]


def read_former_locations(connection: Connection) -> dict[tuple[str, str], FormerLocation]:
    """Return the former locations of all rows, by table and key. A database without the table has none."""
    if not sqlalchemy.inspect(connection).has_table(TABLE):
        return {}
    missing = {column.name for column in _missing_columns(connection)}
    wanted = [column for column in _table.c if column.name not in missing]
    found: dict[tuple[str, str], FormerLocation] = {}
    for row in connection.execute(sqlalchemy.select(*wanted)).mappings():
        marks, stored = (frozenset((row.get(name) or "").split()) for name in ("marks", "stored"))
        one = FormerLocation(
            row["row_table"],
            row["row_key"],
            row["location"],
            row["place"],
            row["fingerprint"],
            row["store_id"],
            marks,
            stored,
            bool(row.get("is_unfinished")),
        )
        found[one.table, one.key] = one
    return found


def record_former_locations(connection: Connection, locations: Sequence[FormerLocation]) -> None:
    """Record former locations in the caller's transaction, and replace earlier records of the same rows."""
    forget_former_locations(connection, locations)
    if locations:
        rows = [
            {
                "row_table": one.table,
                "row_key": one.key,
                "location": one.location,
                "place": one.place,
                "fingerprint": one.fingerprint,
                "store_id": one.store_id,
                "marks": " ".join(sorted(one.marks)),
                "stored": " ".join(sorted(one.stored)),
                "is_unfinished": int(one.is_unfinished),
            }
            for one in locations
        ]
        connection.execute(_table.insert(), rows)


def forget_all_former_locations(connection: Connection) -> None:
    """Remove every record in the caller's transaction: a copy of a database has no former directories of its own."""
    if sqlalchemy.inspect(connection).has_table(TABLE):
        connection.execute(_table.delete())


def forget_former_locations(connection: Connection, locations: Iterable[FormerLocation]) -> None:
    """Remove records in the caller's transaction."""
    keys: dict[str, list[str]] = {}
    for one in locations:
        keys.setdefault(one.table, []).append(one.key)
    for table, found in keys.items():
        for start in range(0, len(found), _BATCH):
            part = _table.c.row_key.in_(found[start : start + _BATCH])
            connection.execute(_table.delete().where(_table.c.row_table == table, part))
