"""Reports of an adoption."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.artifacts.artifact_places import find_common_root, proxied_path, without_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.binding.databases.artifact_rows import ArtifactKind
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.moving.adopted_versions import VersionsReport
    from mlflow_ipfs.moving.adoption_plan import PlannedRow
    from mlflow_ipfs.moving.removing_sources import RemovalReport
    from mlflow_ipfs.moving.taking_in import TakenRow

MAX_REPORTED_PLACES: Final = 20


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not in the store after the adoption.

    Attributes:
        kind: what it is.
        name: its id; ``<model>/<version>`` for a model version.
        reason: the reason.
    """

    kind: ArtifactKind
    name: str
    reason: str


@dataclass(slots=True)
class ExperimentReport:
    """What was taken in of one experiment, or would be.

    Attributes:
        experiment_id: its id.
        name: its name.
        rows: number of rows by kind, of those whose files are in the store now.
        files: number of their files.
        size_bytes: sum of their sizes.
        new_bytes: number of bytes that the store did not have; None in a dry run.
        places: the directories and URIs that the files are from, without credentials.
        empty_directories: number of directories that are not kept, because they have no files.
        unchanged: number of rows that an earlier pass took in.
        left_out: the rows that were left out.
    """

    experiment_id: str
    name: str
    rows: Counter[str] = field(default_factory=Counter)
    files: int = 0
    size_bytes: int = 0
    new_bytes: int | None = None
    places: list[str] = field(default_factory=list)
    empty_directories: int = 0
    unchanged: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def count(self, row: TakenRow) -> None:
        """Add a row that was taken in."""
        self.rows[row.planned.row.kind] += 1
        self.files += row.files
        self.size_bytes += row.size_bytes
        self.empty_directories += row.empty_directories
        place = _place_of(row.planned)
        if row.files and place not in self.places and len(self.places) < MAX_REPORTED_PLACES:
            self.places.append(place)


@dataclass(frozen=True, slots=True)
class AdoptionReport:
    """The result of an adoption.

    Attributes:
        registry_id: the registry id of the database; None in a dry run of a database that has none.
        experiments: the experiments of which something was taken in or left out.
        versions: the model versions.
        destination: the mutable path that ``mlflow-artifacts:/`` means for the store; None if the database has no such
            location.
        has_direct: whether the database names ``mfs://`` locations afterwards, which only clients with this package read.
        removal: what was removed from the former places; None if nothing was to be removed.
    """

    registry_id: str | None
    experiments: Sequence[ExperimentReport]
    versions: VersionsReport
    destination: MfsPath | None
    has_direct: bool
    removal: RemovalReport | None = None

    @property
    def left_out(self) -> list[LeftOut]:
        """Everything that was left out."""
        rows = [one for experiment in self.experiments for one in experiment.left_out]
        return rows + [LeftOut("model version", name, reason) for name, reason in self.versions.left_out]


def sort_in(report: ExperimentReport, row: TakenRow) -> None:
    """Add the outcome for a row to the report of its experiment."""
    if row.problems:
        report.left_out.append(LeftOut(row.planned.row.kind, row.planned.row.name, row.reason))
    elif row.is_known:
        report.unchanged += 1
    else:
        report.count(row)


def _place_of(planned: PlannedRow) -> str:
    """Return the directory or URI that a row shares with other rows, without credentials."""
    if planned.is_proxied:
        path = proxied_path(planned.row.uri) or ""
        return without_user(planned.source.place.removesuffix(f"/{path}"))
    return find_common_root(planned.row)
