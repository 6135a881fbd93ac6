"""MLflow's client as the source of a report: for a tracking server, and for every store without a database.

Histories are read in bulk, one metric of many runs a request. The server cuts its answer without a note, so an answer that
may be cut is completed by further requests.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.mlflow_names import translated_errors
from mlflow_ipfs.errors import InvalidPathError, MlflowIpfsError, NotFoundError, SettingsError

from .data import Missing, Run
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
    from collections.abc import Iterable, Iterator, Sequence

    import mlflow.entities
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from .data import DatasetInput, ModelVersion
    from .histories import Histories
    from .selection import ModelName
    from .sources import Advance

_REQUESTS_AT_ONCE: Final = 8
_PAGE: Final = 1000  # of runs
_VERSIONS_AT_ONCE: Final = 50  # run ids in one filter
Rows = list[tuple[str, str, int, int, float, bool]]


class ClientTracking:
    """Runs that MLflow's client reads. See ``TrackingSource``.

    Args:
        client: the client.
        asked: the tracking URI for messages, without secrets.
    """

    def __init__(self, client: MlflowClient, asked: str) -> None:
        self._client = client
        self._asked = asked
        self._keys: dict[str, list[str]] = {}  # of each run that was found
        self._is_away: str | None = None  # why the server could not be reached, after the first request that failed

    def find_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See ``TrackingSource``."""
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = [run for run in pool.map(self._find_run, dict.fromkeys(run_ids)) if run is not None]
        return self._convert(found)

    def search_runs(self, experiment: str | None, filter_string: str | None, max_runs: int) -> FoundRuns:
        """See ``TrackingSource``."""
        with (
            _filter_errors(filter_string),
            translated_errors(f"runs of {experiment or 'all experiments'}", self._asked),
        ):
            ids = self._experiment_ids(experiment)
            found: list[mlflow.entities.Run] = []
            token: str | None = None
            while ids and len(found) <= max_runs:
                page = self._client.search_runs(
                    ids, filter_string or "", ViewType.ACTIVE_ONLY, _PAGE, ["attributes.start_time DESC"], token
                )
                found += page
                token = page.token
                if not token:
                    break
            return FoundRuns(self._convert(found[:max_runs]), -1 if token else max(len(found) - max_runs, 0))

    def search_ids(self, experiment: str | None, filter_string: str, max_runs: int) -> tuple[list[str], int]:
        """Return the ids of runs, and the number of those that were left out, as ``search_runs``."""
        found = self.search_runs(experiment, filter_string, max_runs)
        return [run.run_id for run in found.runs], found.left_out

    def read_histories(self, runs: Sequence[Run], advance: Advance) -> tuple[Histories, list[Missing]]:
        """See ``TrackingSource``. What cannot be read, because the server refuses it or is away, is missing."""
        jobs = list(self._plan([run.run_id for run in runs]))
        last_job = {run_id: number for number, (_, run_ids) in enumerate(jobs) for run_id in run_ids}
        builder, missing = HistoryBuilder(), []
        advance(sum(run.run_id not in last_job for run in runs))
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            for number, ((key, run_ids), answer) in enumerate(zip(jobs, pool.map(self._read_job, jobs), strict=True)):
                if isinstance(answer, str):
                    missing.append(_describe_missing(key, run_ids, answer))
                else:
                    builder.add_rows(answer)
                    missing += _find_empty(key, run_ids, answer)
                advance(sum(last_job[run_id] == number for run_id in run_ids))
        return builder.build(), missing

    def _plan(self, run_ids: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield each request: a key, and the runs that have it."""
        runs_by_key: dict[str, list[str]] = {}
        for run_id in run_ids:
            for key in self._keys[run_id]:
                runs_by_key.setdefault(key, []).append(run_id)
        for key, having in sorted(runs_by_key.items()):
            for start in range(0, len(having), mlflow_compat.MAX_RUNS_IN_BULK):
                yield key, having[start : start + mlflow_compat.MAX_RUNS_IN_BULK]

    def _read_job(self, job: tuple[str, list[str]]) -> Rows | str:
        """Return all points of one metric of some runs, or why they cannot be read."""
        key, run_ids = job
        rows: Rows = []
        if self._is_away is not None:  # each request would wait for all of MLflow's retries
            return self._is_away
        try:
            with translated_errors(key, self._asked):
                while run_ids:
                    points = mlflow_compat.read_histories_in_bulk(self._client, run_ids, key)
                    if points is None:
                        return rows + [row for run_id in run_ids for row in self._read_run(run_id, key)]
                    if len(points) < mlflow_compat.MAX_POINTS_IN_BULK:
                        return rows + [_row_of(point) for point in points]
                    complete = {point["run_id"] for point in points} - {points[-1]["run_id"]}
                    rows += [_row_of(point) for point in points if point["run_id"] in complete]
                    if not complete:  # one run fills the whole answer
                        complete = {points[-1]["run_id"]}
                        rows += self._read_run(points[-1]["run_id"], key)
                    run_ids = [run_id for run_id in run_ids if run_id not in complete]
        except (MlflowIpfsError, OSError) as error:
            if isinstance(error.__cause__, MlflowException) and isinstance(error.__cause__.__context__, OSError):
                self._is_away = str(error)
            return str(error)
        except (KeyError, TypeError, ValueError) as error:  # of a proxy, or of another program than MLflow
            return f"MLflow's answer cannot be read ({type(error).__name__}: {error})"
        return rows

    def _read_run(self, run_id: str, key: str) -> Rows:
        """Return all points of one metric of one run, page by page."""
        history = self._client.get_metric_history(run_id, key)
        return [(run_id, key, one.step, one.timestamp, one.value, False) for one in history]

    def _find_run(self, run_id: str) -> mlflow.entities.Run | None:
        try:
            with translated_errors(f"run {run_id}", self._asked):
                return self._client.get_run(run_id)
        except NotFoundError:
            return None

    def _experiment_ids(self, name_or_id: str | None) -> list[str]:
        if name_or_id is None:
            return [one.experiment_id for one in self._client.search_experiments(ViewType.ACTIVE_ONLY)]
        found = self._client.get_experiment_by_name(name_or_id)
        if found is None and name_or_id.isascii() and name_or_id.isdigit():
            try:
                found = self._client.get_experiment(name_or_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        if found is None:
            raise unknown_experiment(name_or_id)
        if found.lifecycle_stage == DELETED:
            raise deleted_experiment(name_or_id)
        return [found.experiment_id]

    def _convert(self, runs: Sequence[mlflow.entities.Run]) -> list[Run]:
        with translated_errors("experiments", self._asked):
            ids = {run.info.experiment_id for run in runs}
            names = {one: self._client.get_experiment(one).name for one in sorted(ids)}
        self._keys |= {run.info.run_id: sorted(run.data.metrics) for run in runs}
        return [_convert_run(run, names[run.info.experiment_id]) for run in runs]


class ClientRegistry:
    """Model versions that MLflow's client reads. See ``RegistrySource``."""

    def __init__(self, client: MlflowClient, asked: str) -> None:
        self._client = client
        self._asked = asked

    def find_versions(self, model: ModelName) -> list[ModelVersion]:
        """See ``RegistrySource``."""
        if "'" in model.name:  # MLflow's filters have no escape for it, and names may not have it
            return pick_versions([], model, self._asked)
        with translated_errors(f"model {model}", self._asked):
            return pick_versions(self._read([f"name = '{model.name}'"]), model, self._asked)

    def versions_of_runs(self, run_ids: Sequence[str]) -> list[ModelVersion]:
        """See ``RegistrySource``."""
        some = [run_ids[start : start + _VERSIONS_AT_ONCE] for start in range(0, len(run_ids), _VERSIONS_AT_ONCE)]
        filters = [f"run_id IN ({', '.join(repr(run_id) for run_id in ids)})" for ids in some]
        with translated_errors("model versions", self._asked):
            return sorted(self._read(filters), key=lambda version: (version.name, version.version))

    def _read(self, filters: Iterable[str]) -> list[ModelVersion]:
        found: list[MlflowVersion] = []
        for one in filters:
            token: str | None = None
            while token is None or token:
                page = self._client.search_model_versions(one, page_token=token)
                found += page
                token = page.token or ""
        aliases = self._aliases({version.name for version in found})
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            locations = list(pool.map(self._location, found))
        return [
            make_version(
                (
                    version.name,
                    version.version,
                    version.run_id,
                    location,
                    version.source,
                    version.status,
                    version.creation_timestamp,
                ),
                dict(sorted(version.tags.items())),
                aliases.get((version.name, str(version.version)), []),
            )
            for version, location in zip(found, locations, strict=True)
        ]

    def _location(self, version: MlflowVersion) -> str:
        return str(self._client.get_model_version_download_uri(version.name, str(version.version)))

    def _aliases(self, names: Iterable[str]) -> dict[tuple[str, str], list[str]]:
        """Return the aliases of each version: the answer to a search does not have them."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in sorted(names):
            for alias, version in sorted(self._client.get_registered_model(name).aliases.items()):
                found.setdefault((name, str(version)), []).append(alias)
        return found


@contextmanager
def _filter_errors(filter_string: str | None) -> Iterator[None]:
    """Raise a filter that MLflow cannot parse as an error of the selection."""
    try:
        yield
    except InvalidPathError as error:
        if filter_string is None:
            raise
        msg = f"the filter {filter_string!r} cannot be used: {error}"
        raise SettingsError(msg) from error


def _describe_missing(key: str, run_ids: Sequence[str], reason: str) -> Missing:
    if len(run_ids) == 1:
        return Missing(f"the history of {key}", reason, run_ids[0])
    return Missing(f"the histories of {key} of {len(run_ids):,} runs", reason)


def _find_empty(key: str, run_ids: Sequence[str], rows: Rows) -> list[Missing]:
    """Return what is missing because the server, which lists the metric for these runs, answered without its points."""
    answered = {row[0] for row in rows}
    empty = [run_id for run_id in run_ids if run_id not in answered]
    return [_describe_missing(key, empty, "MLflow answered without a point")] if empty else []


def _row_of(point: dict[str, Any]) -> tuple[str, str, int, int, float, bool]:
    return point["run_id"], point["key"], int(point["step"]), int(point["timestamp"]), float(point["value"]), False


def _convert_run(run: mlflow.entities.Run, experiment: str) -> Run:
    info = run.info
    return Run(
        run_id=info.run_id,
        name=info.run_name or "",
        experiment_id=info.experiment_id,
        experiment=experiment,
        status="DELETED" if info.lifecycle_stage == DELETED else info.status,
        started_ms=info.start_time,
        ended_ms=info.end_time or None,
        user=info.user_id or "",
        artifact_uri=info.artifact_uri or "",
        params=dict(sorted(run.data.params.items())),
        tags=dict(sorted(run.data.tags.items())),
        datasets=tuple(_datasets_of(run)),
    )


def _datasets_of(run: mlflow.entities.Run) -> list[DatasetInput]:
    found = []
    for given in run.inputs.dataset_inputs if run.inputs else []:
        dataset = given.dataset
        contexts = [tag.value for tag in given.tags if tag.key == DATASET_CONTEXT_TAG]
        found.append(
            make_dataset_input(
                dataset.name, dataset.digest, dataset.source, dataset.profile, contexts[0] if contexts else ""
            )
        )
    return sorted(found, key=lambda one: (one.name, one.digest, one.context))
