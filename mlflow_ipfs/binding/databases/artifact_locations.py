"""All artifact locations of MLflow's database: reading and changing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy

from mlflow_ipfs.binding.databases.artifact_rows import LOCATION_TAG
from mlflow_ipfs.binding.locations import MFS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection, TableClause


@dataclass(frozen=True, slots=True)
class _Column:
    table: str
    keys: tuple[str, ...]
    name: str
    where: str = "1 = 1"


_COLUMNS: Final = (
    _Column("experiments", ("experiment_id",), "artifact_location"),
    _Column("runs", ("run_uuid",), "artifact_uri"),
    _Column("logged_models", ("model_id",), "artifact_location"),
    _Column("trace_tags", ("request_id", "key"), "value", f"key = '{LOCATION_TAG}'"),
    _Column("model_versions", ("name", "version"), "storage_location"),
    _Column("model_versions", ("name", "version"), "source"),
)


@dataclass(frozen=True, slots=True)
class ArtifactLocation:
    """One artifact location.

    Attributes:
        table: the table of the row.
        column: the column with the location.
        key: the row's primary key.
        uri: the location.
    """

    table: str
    column: str
    key: tuple[str | int, ...]
    uri: str


def read_locations(connection: Connection) -> Iterator[ArtifactLocation]:
    """Yield every artifact location. Tables that are missing in a database of an older MLflow are skipped."""
    inspector = sqlalchemy.inspect(connection)
    for column in _COLUMNS:
        if not inspector.has_table(column.table):
            continue
        table = _table(column)
        query = sqlalchemy.select(table).where(sqlalchemy.text(column.where), table.c[column.name].is_not(None))
        for *key, uri in connection.execute(query):
            yield ArtifactLocation(column.table, column.name, tuple(key), uri)


def write_locations(connection: Connection, locations: Iterable[ArtifactLocation], change: Callable[[str], str]) -> int:
    """Change ``mfs://`` locations, in the caller's transaction. Return the number of changed locations."""
    count = 0
    for location in locations:
        if not location.uri.startswith(f"{MFS}:") or (uri := change(location.uri)) == location.uri:
            continue
        column = next(one for one in _COLUMNS if (one.table, one.name) == (location.table, location.column))
        table = _table(column)
        row = [table.c[name] == value for name, value in zip(column.keys, location.key, strict=True)]
        connection.execute(table.update().where(*row).values({column.name: uri}))
        count += 1
    return count


def _table(column: _Column) -> TableClause:
    return sqlalchemy.table(column.table, *map(sqlalchemy.column, (*column.keys, column.name)))
