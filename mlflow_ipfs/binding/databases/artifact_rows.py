"""Rows of MLflow's database with artifact locations.

The tables are read with plain SQL, not with MLflow's classes: a database of an older MLflow has fewer tables and
columns, and a read must neither migrate the database nor create tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection

ArtifactKind = Literal["experiment", "run", "logged model", "model version", "trace"]

PENDING: Final = 1  # LoggedModelStatus.PENDING: the model's files may be incomplete
READY: Final = 2  # LoggedModelStatus.READY: the model's files were logged
DELETED_STAGE: Final = "Deleted_Internal"  # stage of a deleted model version
EXTERNAL_TAG: Final = "mlflow.model.isExternal"
LOCATION_TAG: Final = "mlflow.artifactLocation"
_IS_EXTERNAL: Final = (
    "SELECT 1 FROM logged_model_tags t WHERE t.model_id = m.model_id"  # noqa: S608 - fixed texts
    f" AND t.tag_key = '{EXTERNAL_TAG}' AND lower(t.tag_value) = 'true'"
)
_HAS_MODEL: Final = "SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = 'mlflow.log-model.history'"
_RUNS: Final = f"SELECT r.run_uuid, r.experiment_id, r.artifact_uri, EXISTS ({_HAS_MODEL}) FROM runs r"  # noqa: S608 - fixed
_RUNS_AND_MODELS: Final = (
    f"SELECT r.run_uuid, r.experiment_id, r.artifact_uri, EXISTS ({_HAS_MODEL})"  # noqa: S608 - fixed texts
    " AND NOT EXISTS (SELECT 1 FROM logged_models m WHERE m.source_run_id = r.run_uuid) FROM runs r"
)
_MODELS: Final = (
    f"SELECT m.model_id, m.experiment_id, m.artifact_location, m.status = {READY} AND NOT EXISTS ({_IS_EXTERNAL})"  # noqa: S608 - fixed texts
    " FROM logged_models m"
)
_TRACES: Final = (
    "SELECT i.request_id, i.experiment_id, t.value, 1 = 0 FROM trace_info i"  # noqa: S608 - fixed texts
    f" JOIN trace_tags t ON t.request_id = i.request_id AND t.key = '{LOCATION_TAG}'"
)
_VERSIONS: Final = (
    "SELECT name, version, coalesce(nullif(storage_location, ''), source) FROM model_versions"  # noqa: S608 - fixed
    f" WHERE coalesce(current_stage, '') != '{DELETED_STAGE}'"
)
_ACTIVE_RUNS: Final = "SELECT run_uuid FROM runs WHERE status IN ('RUNNING', 'SCHEDULED')"
_UNFINISHED: Final[tuple[tuple[ArtifactKind, str, tuple[str, ...], str], ...]] = (
    ("run", "runs", ("status",), _ACTIVE_RUNS),
    (
        "logged model",
        "logged_models",
        ("status", "source_run_id"),
        f"SELECT model_id FROM logged_models WHERE status = {PENDING} OR source_run_id IN ({_ACTIVE_RUNS})",  # noqa: S608 - fixed texts
    ),
    ("trace", "trace_info", ("request_id", "status"), "SELECT request_id FROM trace_info WHERE status = 'IN_PROGRESS'"),
)
_SOURCE_KEYS: Final = ("uri", "path", "url")
_FOLLOWED: Final = ("models:", "runs:")  # schemes of a version's source that refers to another row


COLUMNS: Final = {  # where the location of each kind of row is
    "run": ("runs", "artifact_uri"),
    "logged model": ("logged_models", "artifact_location"),
    "trace": ("trace_tags", "value"),
}


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One row of MLflow's database with an artifact location.

    Attributes:
        kind: what the row describes.
        name: the row's id; ``<model>/<version>`` for a model version.
        experiment_id: the experiment that the row belongs to; None for a model version.
        uri: the artifact location, as stored.
        has_artifacts: True if the database itself shows that files were logged; False if the location may be empty.
    """

    kind: ArtifactKind
    name: str
    experiment_id: str | None
    uri: str
    has_artifacts: bool


def read_experiments(connection: Connection) -> dict[str, str]:
    """Return the artifact locations of all experiments, by experiment id."""
    if not _has(connection, "experiments", "experiment_id", "artifact_location"):
        return {}
    rows = connection.execute(sqlalchemy.text("SELECT experiment_id, artifact_location FROM experiments"))
    return {str(experiment_id): location or "" for experiment_id, location in rows}


def read_unfinished(connection: Connection) -> set[tuple[ArtifactKind, str]]:
    """Return kind and name of the rows to which a program may still be writing: its process knows their location.

    These are runs that have not ended, logged models of such runs, logged models that are not finalized, and traces
    that are in progress.
    """
    found: set[tuple[ArtifactKind, str]] = set()
    for kind, table, columns, query in _UNFINISHED:
        if _has(connection, table, *columns):
            found |= {(kind, str(name)) for (name,) in connection.execute(sqlalchemy.text(query))}
    return found


def read_dataset_sources(connection: Connection) -> list[tuple[str, str]]:
    """Return name and location of every dataset whose source names a file, a directory or a URI."""
    if not _has(connection, "datasets", "name", "dataset_source"):
        return []
    rows = connection.execute(sqlalchemy.text("SELECT name, dataset_source FROM datasets"))
    return [(str(name), uri) for name, source in rows for uri in _locations_in(source)]


def _locations_in(source: str) -> list[str]:
    """Return the locations in the source of a dataset: JSON, with a key that depends on the type of the source."""
    try:
        fields = json.loads(source)
    except ValueError:  # a type of source that is not MLflow's
        return []
    found = [fields.get(key) for key in _SOURCE_KEYS] if isinstance(fields, dict) else []
    return [uri for uri in found if uri and isinstance(uri, str)]


def iterate_rows(connection: Connection) -> Iterator[ArtifactRow]:
    """Yield every run, logged model, trace and model version that has an artifact location."""
    has_models = _has(connection, "logged_models", "source_run_id") and _has(connection, "logged_model_tags")
    if _has(connection, "runs", "artifact_uri") and _has(connection, "tags", "run_uuid"):
        yield from _rows(connection, "run", _RUNS_AND_MODELS if has_models else _RUNS)
    if has_models:
        yield from _rows(connection, "logged model", _MODELS)
    if _has(connection, "trace_tags") and _has(connection, "trace_info", "request_id"):
        yield from _rows(connection, "trace", _TRACES)
    if _has(connection, "model_versions", "storage_location"):
        for name, version, uri in _stream(connection, _VERSIONS):
            if uri and not uri.startswith(_FOLLOWED):
                yield ArtifactRow("model version", f"{name}/{version}", None, uri, has_artifacts=True)


def _rows(connection: Connection, kind: ArtifactKind, query: str) -> Iterator[ArtifactRow]:
    for name, experiment_id, uri, has_artifacts in _stream(connection, query):
        if uri:
            yield ArtifactRow(kind, name, str(experiment_id), uri, bool(has_artifacts))


def _stream(connection: Connection, query: str) -> Iterator[Any]:
    return iter(connection.execution_options(yield_per=1000).execute(sqlalchemy.text(query)))


def _has(connection: Connection, table: str, *columns: str) -> bool:
    inspector = sqlalchemy.inspect(connection)
    if not inspector.has_table(table):
        return False
    found = {column["name"] for column in inspector.get_columns(table)}
    return found.issuperset(columns)
