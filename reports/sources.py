"""What a report is read from: the interface of databases and servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from mlflow_ipfs.binding.dataset_inputs import cid_of_dataset, dataset_digest
from mlflow_ipfs.binding.locations import cid_of_location
from mlflow_ipfs.errors import NotFoundError

from .data import DatasetInput, ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .data import Missing, Run
    from .histories import Histories
    from .selection import ModelName

    Advance = Callable[[int], None]

DELETED: Final = "deleted"  # MLflow's lifecycle stage
DATASET_CONTEXT_TAG: Final = "mlflow.data.context"


class FoundRuns(NamedTuple):
    """Runs without metric histories.

    Attributes:
        runs: the newest runs.
        left_out: number of older runs that were left out; -1 if the number is not known.
    """

    runs: list[Run]
    left_out: int


class TrackingSource(Protocol):
    """Runs and their metrics. Methods raise the errors of ``mlflow_ipfs.errors``."""

    def find_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Return those of the runs that exist, without metric histories, in the order of their ids."""

    def search_runs(self, experiment: str | None, filter_string: str | None, max_runs: int) -> FoundRuns:
        """Return active runs.

        Args:
            experiment: name or id of an experiment; None for all active ones that match the filter.
            filter_string: MLflow's search filter; None for all runs of the experiment.
            max_runs: the most runs to return.

        Raises:
            NotFoundError: the experiment does not exist, or was deleted.
        """

    def read_histories(self, runs: Sequence[Run], advance: Advance) -> tuple[Histories, list[Missing]]:
        """Return the complete histories of all metrics of runs, and what could not be read.

        Args:
            runs: runs that this source returned.
            advance: called with the number of runs that were just read.
        """


class RegistrySource(Protocol):
    """Registered model versions. Methods raise the errors of ``mlflow_ipfs.errors``."""

    def find_versions(self, model: ModelName) -> list[ModelVersion]:
        """Return the versions that a name means, by number.

        Raises:
            NotFoundError: the model or the version does not exist.
        """

    def versions_of_runs(self, run_ids: Sequence[str]) -> list[ModelVersion]:
        """Return the versions that were made from runs, by name and number."""


def pick_versions(versions: Sequence[ModelVersion], model: ModelName, asked: str) -> list[ModelVersion]:
    """Return those versions of a registered model that a name means, by number.

    Raises:
        NotFoundError: the model or the version does not exist.
    """
    found = sorted(versions, key=lambda version: version.version)
    if model.version is not None:
        found = [version for version in found if version.version == model.version]
    elif model.alias == "latest":
        found = found[-1:]
    elif model.alias is not None:
        found = [version for version in found if model.alias in version.aliases]
    if not found:
        msg = f"MLflow at {asked} has no registered model {model}; check its name, or name another MLflow"
        raise NotFoundError(msg)
    return found


def make_version(fields: Sequence[Any], tags: Mapping[str, str], aliases: Sequence[str]) -> ModelVersion:
    """Return a model version. Its CID is that of its location, which clients cannot edit.

    Args:
        fields: name, number, run id, storage location, source, status and time of creation in ms.
        tags: its tags.
        aliases: its aliases.
    """
    name, version, run_id, location, source, status, created_ms = fields
    cid = cid_of_location(location)
    return ModelVersion(
        name=name,
        version=int(version),
        run_id=run_id or "",
        cid=None if cid is None else str(cid),
        source=source or "",
        status=status or "",
        created_ms=created_ms,
        aliases=tuple(aliases),
        tags=tags,
    )


def unknown_experiment(name_or_id: str) -> NotFoundError:
    """Return the error for an experiment that MLflow does not have."""
    return NotFoundError(
        f"MLflow has no experiment with the name or id {name_or_id!r}; `mlflow experiments search` lists them"
    )


def deleted_experiment(name_or_id: str) -> NotFoundError:
    """Return the error for an experiment that was deleted, whose runs are deleted with it."""
    return NotFoundError(
        f"the experiment {name_or_id!r} was deleted, with its runs; `mlflow experiments restore` brings it back"
    )


def make_dataset_input(name: str, digest: str, source: str, profile: str | None, context: str) -> DatasetInput:
    """Return a dataset from the fields that MLflow records."""
    cid = cid_of_dataset(source, profile)
    size = _fields(profile).get("size_bytes")
    uri = _fields(source).get("uri")
    return DatasetInput(
        name=name,
        digest=digest,
        source=uri if isinstance(uri, str) else source,
        context=context,
        cid=None if cid is None else str(cid),
        cid_is_certain=cid is not None and digest == dataset_digest(cid),
        size_bytes=size if isinstance(size, int) else None,
    )


def _fields(text: str | None) -> dict[str, object]:
    try:
        found = json.loads(text or "")
    except ValueError:  # the source of another plugin, in that plugin's format
        return {}
    return found if isinstance(found, dict) else {}
