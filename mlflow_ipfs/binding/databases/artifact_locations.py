"""All artifact locations of MLflow's database: reading and changing them."""

from __future__ import annotations

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


def write_locations(connection: Connection, locations: Iterable[ArtifactLocation], change: Callable[[str], str]) -> int:
    """Change locations in the caller's transaction, where ``change`` returns another URI. Return how many changed.

    A location that another program has changed or deleted meanwhile is left as it is.
    """
    count = 0
    for location in locations:
        if (uri := change(location.uri)) == location.uri:
            continue
        table, row = _find(location)
        unchanged = table.c[location.column] == location.uri
        count += connection.execute(table.update().where(*row, unchanged).values({location.column: uri})).rowcount
    return count


def has_row(connection: Connection, location: ArtifactLocation) -> bool:
    """Return True if the row of a location exists, even if the location has changed."""
    table, row = _find(location)
    return connection.execute(sqlalchemy.select(sqlalchemy.true()).select_from(table).where(*row)).first() is not None


def _find(location: ArtifactLocation) -> tuple[TableClause, list[sqlalchemy.ColumnElement[bool]]]:
    """Return the table of a location, and the conditions that select its row."""
    column = next(one for one in _COLUMNS if (one.table, one.name) == (location.table, location.column))
    table = _table(column)
    return table, [table.c[name] == value for name, value in zip(column.keys, location.key, strict=True)]


def _table(column: _Column) -> TableClause:
    return sqlalchemy.table(column.table, *map(sqlalchemy.column, (*column.keys, column.name)))
