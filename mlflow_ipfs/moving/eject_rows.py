"""The rows of MLflow's database that are ejected, and those that are not, with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy

from mlflow_ipfs.binding.artifacts.outside_artifacts import iterate_outside_artifacts
from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation, read_locations
from mlflow_ipfs.binding.databases.artifact_rows import DELETED_STAGE, ArtifactKind, read_unfinished
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.locations import scheme_of
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError
from mlflow_ipfs.moving.ejected_places import STORED_SCHEMES

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from sqlalchemy import URL, Connection

    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.ejected_places import EjectedPlaces, StoredPlace

_KINDS: Final[dict[str, ArtifactKind]] = {
    "experiments": "experiment",
    "runs": "run",
    "logged_models": "logged model",
    "trace_tags": "trace",
    "model_versions": "model version",
}
RUNNING: Final = "is not finished; eject again when it is, or with --include-running"


@dataclass(frozen=True, slots=True)
class EjectRow:
    """A location of MLflow's database that means a place in the store.

    Attributes:
        location: the location, with the key of its row.
        place: the place in the store.
    """

    location: ArtifactLocation
    place: StoredPlace

    @property
    def kind(self) -> ArtifactKind:
        """What the row describes."""
        return _KINDS[self.location.table]

    @property
    def name(self) -> str:
        """The row's id; ``<model>/<version>`` for a model version."""
        key = self.location.key
        return f"{key[0]}/{key[1]}" if self.kind == "model version" else str(key[0])

    @property
    def label(self) -> str:
        """The row in messages."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class EjectRows:
    """The rows of one reading of the database.

    Attributes:
        experiments: the rows of each experiment, by its id.
        versions: the locations of the model versions, by the model's name.
        left: the reason for each row that is left, by its label.
        left_paths: the mutable paths of the runs, logged models and traces that are left.
    """

    experiments: dict[str, list[EjectRow]]
    versions: dict[str, list[EjectRow]]
    left: dict[str, str]
    left_paths: tuple[MfsPath, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """The artifacts that the database names and that are not in the store.

    Attributes:
        missing: kind and name of the rows whose location means the store, which does not have their artifacts.
        elsewhere: number of rows whose location does not mean the store: they stay as they are.
    """

    missing: frozenset[tuple[ArtifactKind, str]]
    elsewhere: int


def find_outside(url: URL, store: ContentStore, base: MfsPath | None) -> Outside:
    """Return the artifacts that are not in the store.

    Args:
        url: the database.
        store: the store.
        base: the mutable path that ``mlflow-artifacts:/`` means.
    """
    environ = os.environ | ({"MLFLOW_ARTIFACTS_DESTINATION": str(base)} if base is not None else {})
    outside = iterate_outside_artifacts(url, store, environ=environ)
    found = [one.row for one in outside if one.row.kind != "experiment" and not one.is_partly_inside]
    missing = frozenset((row.kind, row.name) for row in found if scheme_of(row.uri) in STORED_SCHEMES)
    return Outside(missing, len(found) - len(missing))


def read_rows(
    url: URL,
    places: EjectedPlaces,
    missing: AbstractSet[tuple[ArtifactKind, str]],
    *,
    include_running: bool,
) -> EjectRows:
    """Read the locations that mean the store.

    Args:
        url: the database.
        places: the meaning of locations.
        missing: rows to leave, because the store does not have their artifacts.
        include_running: include rows to which a program may still be writing.
    """
    with opened_database(url) as connection:
        unfinished = set() if include_running else read_unfinished(connection)
        deleted = _deleted_versions(connection)
        locations = [one for one in read_locations(connection) if scheme_of(one.uri) in STORED_SCHEMES]
    rows = EjectRows(defaultdict(list), defaultdict(list), {}, ())
    left_paths = []
    for location in locations:
        if location.table == "model_versions" and location.key in deleted:
            continue
        try:
            place = places.find(location.uri)
        except (InvalidCIDError, InvalidPathError) as error:
            rows.left[f"{_KINDS[location.table]} {location.key[0]}"] = str(error)
            continue
        if place is None:
            continue
        row = EjectRow(location, place)
        if row.kind != "model version" and (place.cid is not None or place.mutable is None):
            rows.left[row.label] = f"its location {location.uri} is immutable, which MLflow cannot have written"
        elif (row.kind, row.name) in missing:
            if not places.has_ejected(place):
                rows.left[row.label] = f"its files at {location.uri} are not in this store"
        elif (row.kind, row.name) in unfinished:
            rows.left[row.label] = RUNNING
            left_paths += [place.mutable] if place.mutable is not None else []
        elif row.kind == "model version":
            rows.versions[str(location.key[0])].append(row)
        else:
            rows.experiments[str(location.experiment_id)].append(row)
    return EjectRows(rows.experiments, rows.versions, rows.left, tuple(left_paths))


def count_datasets(url: URL) -> int:
    """Return the number of datasets whose source is ``ipfs://``."""
    with opened_database(url) as connection:
        if not sqlalchemy.inspect(connection).has_table("datasets"):
            return 0
        query = "SELECT count(*) FROM datasets WHERE dataset_source LIKE '%ipfs://%'"
        return int(connection.execute(sqlalchemy.text(query)).scalar_one())


def _deleted_versions(connection: Connection) -> set[tuple[str | int, ...]]:
    if not sqlalchemy.inspect(connection).has_table("model_versions"):
        return set()
    query = "SELECT name, version FROM model_versions WHERE current_stage = :stage"
    return {(name, version) for name, version in connection.execute(sqlalchemy.text(query), {"stage": DELETED_STAGE})}
