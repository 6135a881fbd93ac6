"""Collects the data of a report from any MLflow: a database by SQL, and every other store by MLflow's client."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases.connections import opened_database
from mlflow_ipfs.binding.mlflow_names import connect_client, read_database_url, shown_uri
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError

from .data import Missing, ReportData, group_series
from .database_source import DatabaseRegistry, DatabaseTracking, check_is_mlflow
from .latencies import read_latencies
from .selection import DEFAULT_MAX_RUNS, ModelName, Selection
from .server_source import ClientRegistry, ClientTracking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow import MlflowClient

    from .data import ModelVersion, Run
    from .sources import RegistrySource, TrackingSource

    Progress = Callable[[int, int], None]


def collect(
    *,
    run_ids: Sequence[str] = (),
    experiment: str | None = None,
    filter_string: str | None = None,
    model: str | None = None,
    tracking_uri: str | None = None,
    max_runs: int = DEFAULT_MAX_RUNS,
    progress: Progress | None = None,
) -> ReportData:
    """Return runs with their complete metric histories, datasets, latencies and model versions.

    A database is only read; a SQLite file is opened read-only. A server gets few requests: one for each metric of 100 runs,
    and more where its answers would be cut.

    Args:
        run_ids: ids of runs.
        experiment: name or id of an experiment.
        filter_string: MLflow's search filter, for example ``"metrics.val_loss < 0.1"``; in the experiment, or in all.
        model: a registered model, ``name``, ``name/3`` or ``name@alias``: the runs that its versions were made from.
        tracking_uri: the MLflow to read; None: the one that MLflow uses in this process.
        max_runs: the newest runs are read, up to this number.
        progress: called with the number of runs whose histories were read, and the number of all.

    Returns:
        The data. ``missing`` names what could not be read. Only an error that leaves no run to report on is raised.

    Raises:
        SettingsError: the selection or the tracking URI cannot be used.
        NotFoundError: MLflow does not have any of what was named.
        RemoteError: the server cannot be reached.
    """
    selection = Selection(
        tuple(run_ids), experiment, filter_string, None if model is None else ModelName.parse(model), max_runs
    )
    selection.check()
    with ExitStack() as stack:
        collector = _Collector(stack, tracking_uri)
        return collector.collect(selection, progress or _ignore)


class _Collector:
    """The sources of one report.

    Args:
        stack: closes the connections.
        tracking_uri: the MLflow to read; None for the one that MLflow uses.
    """

    def __init__(self, stack: ExitStack, tracking_uri: str | None) -> None:
        uri, registry_uri, origin = mlflow_compat.client_uris(tracking_uri)
        self._asked = shown_uri(uri)
        self._missing: list[Missing] = []

        self._registry_uri = registry_uri
        self._stack = stack

        def open_client() -> MlflowClient:
            return connect_client("report", uri, registry_uri, origin)

        self._open_client = open_client
        url = read_database_url(uri)
        self._server = uri if url is None else None
        self._tracking: TrackingSource
        if url is None:
            self._tracking = ClientTracking(open_client(), self._asked)
        else:
            connection = stack.enter_context(opened_database(url, is_read_only=True))
            check_is_mlflow(connection, self._asked)
            self._tracking = DatabaseTracking(
                connection, lambda *wanted: ClientTracking(open_client(), self._asked).search_ids(*wanted)
            )

    def _open_registry(self) -> RegistrySource:
        asked = shown_uri(self._registry_uri)
        url = read_database_url(self._registry_uri)
        if url is None:
            return ClientRegistry(self._open_client(), asked)
        connection = self._stack.enter_context(opened_database(url, is_read_only=True))
        check_is_mlflow(connection, asked)
        return DatabaseRegistry(connection, asked)

    def collect(self, selection: Selection, progress: Progress) -> ReportData:
        """Return the data of a report."""
        versions = [] if selection.model is None else self._open_registry().find_versions(selection.model)
        runs = self._find_runs(selection, versions)
        runs = [self._with_latencies(run) for run in self._with_histories(runs, progress)]
        if selection.model is None:
            versions = self._versions_of(runs)
        return ReportData(
            title=_title_of(selection, runs),
            source=self._asked,
            runs=tuple(runs),
            versions=tuple(versions),
            missing=tuple(self._missing),
        )

    def _find_runs(self, selection: Selection, versions: Sequence[ModelVersion]) -> list[Run]:
        if selection.model is not None:
            newest_first = [version.run_id for version in reversed(versions) if version.run_id]
            return self._find_named(newest_first, selection.max_runs)
        if selection.run_ids:
            runs = self._find_named(selection.run_ids, selection.max_runs)
            if not runs:
                msg = f"MLflow at {self._asked} has no run {', '.join(selection.run_ids)}"
                raise NotFoundError(msg)
            return runs
        found = self._tracking.search_runs(selection.experiment, selection.filter, selection.max_runs)
        if found.left_out:
            count = f"{found.left_out:,}" if found.left_out > 0 else "some"
            self._note(f"{count} older runs", f"a report has at most {selection.max_runs:,} runs, the newest ones")
        return found.runs

    def _find_named(self, run_ids: Sequence[str], max_runs: int) -> list[Run]:
        wanted = list(dict.fromkeys(run_ids))
        if len(wanted) > max_runs:
            self._note(f"{len(wanted) - max_runs:,} of the runs", f"a report has at most {max_runs:,} runs")
        runs = self._tracking.find_runs(wanted[:max_runs])
        known = {run.run_id for run in runs}
        for run_id in wanted[:max_runs]:
            if run_id not in known:
                self._note(f"the run {run_id}", "MLflow does not have it", run_id)
        return runs

    def _with_histories(self, runs: Sequence[Run], progress: Progress) -> list[Run]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, len(runs))

        histories, missing = self._tracking.read_histories(runs, advance)
        self._missing += missing
        return [replace(run, **group_series(histories.get(run.run_id, {}))) for run in runs]

    def _with_latencies(self, run: Run) -> Run:
        latencies, missing = read_latencies(run, self._server)
        self._missing += missing
        return replace(run, latencies=tuple(latencies))

    def _versions_of(self, runs: Sequence[Run]) -> list[ModelVersion]:
        try:
            return self._open_registry().versions_of_runs([run.run_id for run in runs])
        except MlflowIpfsError as error:
            self._note("the model versions", str(error))
            return []

    def _note(self, what: str, reason: str, run_id: str = "") -> None:
        self._missing.append(Missing(what, reason, run_id))


def _title_of(selection: Selection, runs: Sequence[Run]) -> str:
    """Return the heading: the name of the only run that was asked for, else what the selection says."""
    if len(selection.run_ids) == 1 and len(runs) == 1 and runs[0].name:
        return f"run {runs[0].name}"
    return selection.title


def _ignore(_done: int, _total: int) -> None:
    return None
