"""All artifact locations of MLflow's database: reading and changing them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy

from mlflow_ipfs.binding.databases.artifact_rows import LOCATION_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from sqlalchemy import Connection, TableClause


@dataclass(frozen=True, slots=True)
class _Column:
    table: str
    keys: tuple[str, ...]
    name: str
    experiment: str = "experiment_id"
    where: str = "1 = 1"


_TRACE_EXPERIMENT: Final = "(SELECT i.experiment_id FROM trace_info i WHERE i.request_id = trace_tags.request_id)"
_COLUMNS: Final = (
    _Column("experiments", ("experiment_id",), "artifact_location"),
    _Column("runs", ("run_uuid",), "artifact_uri"),
    _Column("logged_models", ("model_id",), "artifact_location"),
    _Column("trace_tags", ("request_id", "key"), "value", _TRACE_EXPERIMENT, f"key = '{LOCATION_TAG}'"),
    _Column("model_versions", ("name", "version"), "storage_location", "NULL"),
    _Column("model_versions", ("name", "version"), "source", "NULL"),
)


@dataclass(frozen=True, slots=True)
class ArtifactLocation:
    """One artifact location.

    Attributes:
        table: the table of the row.
        column: the column with the location.
        key: the row's primary key.
        uri: the location.
        experiment_id: the experiment that the row belongs to; None for a model version.
    """

    table: str
    column: str
    key: tuple[str | int, ...]
    uri: str
    experiment_id: str | None = None


def read_locations(connection: Connection) -> Iterator[ArtifactLocation]:
    """Yield every artifact location. Tables that are missing in a database of an older MLflow are skipped."""
    inspector = sqlalchemy.inspect(connection)
    for column in _COLUMNS:
        if not inspector.has_table(column.table):
            continue
        table = _table(column)
        experiment: sqlalchemy.ColumnElement[Any] = sqlalchemy.literal_column(column.experiment)
        query = sqlalchemy.select(*table.c, experiment).where(
            sqlalchemy.text(column.where), table.c[column.name].is_not(None)
        )
        for *key, uri, experiment_id in connection.execute(query):
            yield ArtifactLocation(
                column.table, column.name, tuple(key), uri, None if experiment_id is None else str(experiment_id)
            )


def read_lengths(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many characters the locations of each table and column can have. SQLite has no limits."""
    if connection.dialect.name == "sqlite":
        return {}
    inspector = sqlalchemy.inspect(connection)
    return {
        (column.table, found["name"]): length
        for column in _COLUMNS
        if inspector.has_table(column.table)
        for found in inspector.get_columns(column.table)
        if found["name"] == column.name and (length := getattr(found["type"], "length", None)) is not None
    }


def write_locations(connection: Connection, locations: Iterable[ArtifactLocation], change: Callable[[str], str]) -> int:
    """Change locations in the caller's transaction, where ``change`` returns another URI. Return how many changed.

    A location that another program has changed or deleted meanwhile is left as it is.
    """
    count = 0
    for location in locations:
        if (uri := change(location.uri)) == location.uri:
            continue
        column = _column_of(location)
        keys = {_parameter(name): value for name, value in zip(column.keys, location.key, strict=True)}
        count += connection.execute(_update_of(column), keys | {"former": location.uri, "new": uri}).rowcount
    return count


def has_row(connection: Connection, location: ArtifactLocation) -> bool:
    """Return True if the row of a location exists, even if the location has changed."""
    column = _column_of(location)
    table = _table(column)
    row = [table.c[name] == value for name, value in zip(column.keys, location.key, strict=True)]
    return connection.execute(sqlalchemy.select(sqlalchemy.true()).select_from(table).where(*row)).first() is not None


def _column_of(location: ArtifactLocation) -> _Column:
    return next(one for one in _COLUMNS if (one.table, one.name) == (location.table, location.column))


@functools.cache  # building the statement takes longer than executing it
def _update_of(column: _Column) -> sqlalchemy.Update:
    table = _table(column)
    row = [table.c[name] == sqlalchemy.bindparam(_parameter(name)) for name in column.keys]
    row.append(table.c[column.name] == sqlalchemy.bindparam("former"))
    return table.update().where(*row).values({column.name: sqlalchemy.bindparam("new")})


def _parameter(key: str) -> str:
    return f"key_{key}"  # SQLAlchemy reserves the names of the columns


def _table(column: _Column) -> TableClause:
    return sqlalchemy.table(column.table, *map(sqlalchemy.column, (*column.keys, column.name)))
