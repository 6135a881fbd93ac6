"""MLflow's database as the source of a report: a few reads of whole tables, without MLflow's own stores.

A SQLite file is opened read-only. Its metrics are read run by run, in the order of MLflow's index on (run, key, step). That
is faster than one read of the whole table, and a program that writes metrics waits no longer than the read of one run.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, inspect, text

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.errors import NotFoundError

from .data import Run
from .histories import HistoryBuilder
from .sources import (
    DATASET_CONTEXT_TAG,
    DELETED,
    FoundRuns,
    deleted_experiment,
    make_dataset_input,
    make_version,
    pick_versions,
    unknown_experiment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from .data import DatasetInput, Missing, ModelVersion
    from .histories import Histories
    from .selection import ModelName
    from .sources import Advance

_IDS_AT_ONCE: Final = 500
_ROWS_AT_ONCE: Final = 50_000
_RUNS_AT_ONCE_OF_SERVERS: Final = 50  # in one read of metrics, which is a round trip

_RUNS: Final = (
    "SELECT r.run_uuid, r.name, r.experiment_id, e.name,"
    " CASE r.lifecycle_stage WHEN 'deleted' THEN 'DELETED' ELSE r.status END, r.start_time, r.end_time, r.user_id, r.artifact_uri"
    " FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id"
)
_ACTIVE: Final = " WHERE r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'"
# Columns are named with their table: `key` alone is a reserved word of MySQL.
_PARAMS: Final = "SELECT p.run_uuid, p.key, p.value FROM params p WHERE p.run_uuid IN :ids"
_TAGS: Final = "SELECT t.run_uuid, t.key, t.value FROM tags t WHERE t.run_uuid IN :ids"
_METRICS: Final = (
    "SELECT m.run_uuid, m.key, m.step, m.timestamp, m.value, m.is_nan FROM metrics m"
    " WHERE m.run_uuid IN :ids ORDER BY m.run_uuid, m.key, m.step"
)
_DATASETS: Final = (
    "SELECT i.destination_id, d.name, d.digest, d.dataset_source, d.dataset_profile, t.value"
    " FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
    " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = :context"
    " WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id IN :ids"
)
_VERSIONS: Final = (
    "SELECT name, version, run_id, storage_location, source, status, creation_time FROM model_versions"
    " WHERE coalesce(current_stage, '') != :deleted AND {} IN :ids"
)
_VERSION_TAGS: Final = "SELECT t.name, t.version, t.key, t.value FROM model_version_tags t WHERE t.name IN :ids"
_ALIASES: Final = "SELECT name, version, alias FROM registered_model_aliases WHERE name IN :ids"


def check_is_mlflow(connection: Connection, asked: str) -> None:
    """Raise if a database is not one of MLflow.

    Raises:
        NotFoundError: MLflow's tables are missing.
    """
    if not inspect(connection).has_table("metrics"):
        msg = f"{asked} is not a database of MLflow; name another one"
        raise NotFoundError(msg)


class DatabaseTracking:
    """Runs in a database. See ``TrackingSource``.

    Args:
        connection: an open connection to the database.
        search_ids: finds runs by a filter, through MLflow's own client: the arguments of ``search_runs`` to the ids of
            the runs, and the number of those that were left out.
    """

    def __init__(
        self, connection: Connection, search_ids: Callable[[str | None, str, int], tuple[list[str], int]]
    ) -> None:
        self._connection = connection
        self._search_ids = search_ids

    def find_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See ``TrackingSource``."""
        rows: dict[str, Any] = {
            row[0]: row for row in _select(self._connection, f"{_RUNS} WHERE r.run_uuid IN :ids", run_ids)
        }
        return self._complete([rows[run_id] for run_id in dict.fromkeys(run_ids) if run_id in rows])

    def search_runs(self, experiment: str | None, filter_string: str | None, max_runs: int) -> FoundRuns:
        """See ``TrackingSource``."""
        if filter_string is not None:
            run_ids, left_out = self._search_ids(experiment, filter_string, max_runs)
            return FoundRuns(self.find_runs(run_ids), left_out)
        assert experiment is not None  # a selection has one, or a filter
        values = {"experiment": self._find_experiment(experiment)}
        rows: list[Any] = list(
            self._connection.execute(text(f"{_RUNS}{_ACTIVE} AND r.experiment_id = :experiment"), values)
        )
        rows.sort(key=lambda row: (-(row[5] or 0), row[0]))
        return FoundRuns(self._complete(rows[:max_runs]), max(len(rows) - max_runs, 0))

    def read_histories(self, runs: Sequence[Run], advance: Advance) -> tuple[Histories, list[Missing]]:
        """See ``TrackingSource``."""
        builder = HistoryBuilder()
        is_sqlite = self._connection.dialect.name == "sqlite"
        statement = text(_METRICS).bindparams(bindparam("ids", expanding=True))
        for some in _chunks([run.run_id for run in runs], 1 if is_sqlite else _RUNS_AT_ONCE_OF_SERVERS):
            result = self._connection.execute(statement, {"ids": some}, execution_options={"stream_results": True})
            # SQLite's own rows take half the time of SQLAlchemy's. Of a server's cursor, SQLAlchemy has read some rows ahead.
            rows_of: Any = result.cursor if is_sqlite else result
            while rows := rows_of.fetchmany(_ROWS_AT_ONCE):
                builder.add_rows(rows)
            result.close()
            advance(len(some))
        return builder.build(), []

    def _find_experiment(self, name_or_id: str) -> int:
        select = text("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = :name")
        found = self._connection.execute(select, {"name": name_or_id}).first()
        if found is None and name_or_id.isascii() and name_or_id.isdigit():
            select = text("SELECT experiment_id, lifecycle_stage FROM experiments WHERE experiment_id = :id")
            found = self._connection.execute(select, {"id": int(name_or_id)}).first()
        if found is None:
            raise unknown_experiment(name_or_id)
        if found[1] == DELETED:
            raise deleted_experiment(name_or_id)
        return int(found[0])

    def _complete(self, rows: Sequence[Any]) -> list[Run]:
        """Return runs with their params, tags and datasets."""
        run_ids = [row[0] for row in rows]
        params = _group_pairs(_select(self._connection, _PARAMS, run_ids))
        tags = _group_pairs(_select(self._connection, _TAGS, run_ids))
        datasets: dict[str, list[DatasetInput]] = defaultdict(list)
        for run_id, name, digest, source, profile, context in _select(
            self._connection, _DATASETS, run_ids, {"context": DATASET_CONTEXT_TAG}
        ):
            datasets[run_id].append(make_dataset_input(name, digest, source, profile, context or ""))
        return [
            Run(
                run_id=row[0],
                name=row[1] or "",
                experiment_id=str(row[2]),
                experiment=row[3],
                status=row[4] or "",
                started_ms=row[5],
                ended_ms=row[6],
                user=row[7] or "",
                artifact_uri=row[8] or "",
                params=params[row[0]],
                tags=tags[row[0]],
                datasets=tuple(sorted(datasets[row[0]], key=lambda one: (one.name, one.digest, one.context))),
            )
            for row in rows
        ]


class DatabaseRegistry:
    """Model versions in a database. See ``RegistrySource``."""

    def __init__(self, connection: Connection, asked: str) -> None:
        self._connection = connection
        self._asked = asked

    def find_versions(self, model: ModelName) -> list[ModelVersion]:
        """See ``RegistrySource``."""
        return pick_versions(self._read("name", [model.name]), model, self._asked)

    def versions_of_runs(self, run_ids: Sequence[str]) -> list[ModelVersion]:
        """See ``RegistrySource``."""
        return sorted(self._read("run_id", run_ids), key=lambda version: (version.name, version.version))

    def _read(self, column: str, values: Sequence[str]) -> list[ModelVersion]:
        deleted = {"deleted": mlflow_compat.deleted_stage()}
        rows = list(_select(self._connection, _VERSIONS.format(column), values, deleted))
        names = sorted({row[0] for row in rows})
        tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for name, version, key, value in sorted(_select(self._connection, _VERSION_TAGS, names)):
            tags[name, version][key] = value or ""
        aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name, version, alias in sorted(_select(self._connection, _ALIASES, names)):
            aliases[name, version].append(alias)
        return [make_version(row, tags[row[0], row[1]], aliases[row[0], row[1]]) for row in rows]


def _select(
    connection: Connection, statement: str, ids: Sequence[str], values: dict[str, str] | None = None
) -> Iterator[Any]:
    """Yield the rows of a statement for ids, some ids at a time: databases limit the number of parameters."""
    prepared = text(statement).bindparams(bindparam("ids", expanding=True))
    for some in _chunks(list(ids), _IDS_AT_ONCE):
        yield from connection.execute(prepared, {"ids": some, **(values or {})})


def _chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _group_pairs(rows: Iterator[Any]) -> dict[str, dict[str, str]]:
    """Return the pairs of each run, by key."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for run_id, key, value in sorted(rows, key=lambda row: row[1]):
        found[run_id][key] = value or ""
    return found
