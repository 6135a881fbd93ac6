"""The data of a report: runs with complete metric histories, model versions, and what could not be read.

Everything is frozen, and arrays are read-only. Times are in ms since 1970, as MLflow stores them. All text comes from MLflow
and is hostile input: every renderer escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from mlflow_ipfs.training.latency import LatencyRecorder

# MLflow's databases have no infinity: they store the largest double instead.
_STORED_INFINITY: Final = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The complete history of one metric, by step, then by time. Steps may be negative, and may repeat.

    Attributes:
        key: the metric's key; of a system metric, its name without ``system/<node>/``.
        steps: the steps.
        times_ms: the times in ms since 1970.
        values: the values, NaN and infinity included.
    """

    key: str
    steps: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def build(cls, key: str, steps: ArrayLike, times_ms: ArrayLike, values: ArrayLike) -> Series:
        """Return a series of points in any order, in which MLflow's stored infinity is infinity again."""
        step, time = np.asarray(steps, np.int64).view(), np.asarray(times_ms, np.int64).view()
        value = np.array(values, np.float64)
        value[value >= _STORED_INFINITY] = np.inf
        value[value <= -_STORED_INFINITY] = -np.inf
        if not _is_in_order(step, time):
            order = np.lexsort((value, time, step))
            step, time, value = step[order], time[order], value[order]
        for array in (step, time, value):
            array.flags.writeable = False
        return cls(key, step, time, value)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The value at the highest step, the latest one if the step repeats. MLflow shows it as the metric's value."""
        return float(self.values[-1])

    @property
    def finite(self) -> NDArray[np.float64]:
        """The values without NaN and infinity."""
        return self.values[np.isfinite(self.values)]


def _is_in_order(steps: NDArray[np.int64], times: NDArray[np.int64]) -> bool:
    """Return whether every point comes after the one before it. Equal points have to be sorted by value."""
    up = steps[1:] > steps[:-1]
    return bool(np.all(up | ((steps[1:] == steps[:-1]) & (times[1:] > times[:-1]))))


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run has read, as it was logged.

    Attributes:
        name: its name.
        digest: MLflow's digest, of a sample of the rows.
        source: where it is from: a URI, or the JSON text of a source that MLflow does not express as one.
        context: what the run used it for, for example ``training``; ``""`` if that was not logged.
        cid: the CID that the source or the profile names; None without one.
        cid_is_certain: whether the record belongs to exactly this CID (``mlflow_ipfs.binding.dataset_inputs``).
        size_bytes: the size, if the profile has it.
    """

    name: str
    digest: str
    source: str
    context: str = ""
    cid: str | None = None
    cid_is_certain: bool = False
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """The latencies of one inference of a run.

    Attributes:
        path: the artifact that they were read from, ``inference/<stage>/latency.json`` or
            ``<model>/inference/latency.json``.
        stage: ``predict``, ``test`` or ``""``.
        device: the device; ``""`` if it was not recorded.
        recorder: warm-up, first batch, and a histogram and the peak memory for each batch size. Do not change it.
    """

    path: str
    stage: str
    device: str
    recorder: LatencyRecorder


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model version.

    Attributes:
        name: the registered model.
        version: the number.
        run_id: the run that made it; ``""`` if it is not known.
        cid: the CID that the version is frozen to, from its storage location; None if it is not frozen.
        source: the URI that was registered.
        status: MLflow's status, ``READY`` for a usable version.
        created_ms: when it was registered.
        aliases: its aliases.
        tags: its tags.
    """

    name: str
    version: int
    run_id: str = ""
    cid: str | None = None
    source: str = ""
    status: str = ""
    created_ms: int | None = None
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run, with everything that a report shows of it.

    Attributes:
        run_id: MLflow's id; a name, for what was recorded without MLflow.
        name: the name that MLflow shows.
        experiment_id: the experiment.
        experiment: the experiment's name.
        status: ``FINISHED``, ``FAILED``, ``KILLED``, ``RUNNING`` or ``SCHEDULED``; ``DELETED`` for a deleted run.
        started_ms: when it started.
        ended_ms: when it ended; None while it is running.
        user: the user; ``""`` if it is not known.
        artifact_uri: the location of its artifacts.
        params: parameters by name.
        tags: tags by name, those of MLflow (``mlflow.…``) included.
        metrics: histories of the user's metrics by key, sorted; those of ``mlflow_ipfs.training.metric_names`` included,
            without system metrics.
        system: histories of the system metrics by node and name, sorted. MLflow's own sampler without a node id has the
            node ``""``.
        datasets: datasets that the run has read.
        latencies: latencies of inference.
    """

    run_id: str
    name: str = ""
    experiment_id: str = ""
    experiment: str = ""
    status: str = ""
    started_ms: int | None = None
    ended_ms: int | None = None
    user: str = ""
    artifact_uri: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Series] = field(default_factory=dict)
    system: Mapping[str, Mapping[str, Series]] = field(default_factory=dict)
    datasets: tuple[DatasetInput, ...] = ()
    latencies: tuple[Latency, ...] = ()

    @property
    def duration_seconds(self) -> float | None:
        """The wall time of the run; None while it is running, and if it ended before it started."""
        if self.started_ms is None or self.ended_ms is None or self.ended_ms < self.started_ms:
            return None
        return (self.ended_ms - self.started_ms) / 1000

    @property
    def point_count(self) -> int:
        """Number of points of all histories."""
        found = [self.metrics, *self.system.values()]
        return sum(len(series) for group in found for series in group.values())


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that belongs into the report and could not be read. Every output shows it.

    Attributes:
        what: what is missing, for example ``the history of val_loss``.
        reason: why, one sentence.
        run_id: the run that it belongs to; ``""`` for the whole report.
    """

    what: str
    reason: str
    run_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """All data of a report. Holds no time of its own, so that equal data gives equal bytes.

    Attributes:
        title: what the report is about, for example ``digits, version 1``.
        source: the tracking URI, without secrets; ``""`` for what was recorded without MLflow.
        runs: the runs: in the order of their ids if the caller named them, else the newest first.
        versions: the model versions that were asked for, or that were made from the runs; by name and number.
        missing: what could not be read. A report with any of it is a partial report.
    """

    title: str
    source: str = ""
    runs: tuple[Run, ...] = ()
    versions: tuple[ModelVersion, ...] = ()
    missing: tuple[Missing, ...] = ()

    def find_run(self, run_id: str) -> Run | None:
        """Return a run by its id; None if the report does not have it."""
        return next((run for run in self.runs if run.run_id == run_id), None)

    def versions_of(self, run_id: str) -> tuple[ModelVersion, ...]:
        """Return the model versions that were made from a run."""
        return tuple(version for version in self.versions if version.run_id == run_id)


SYSTEM_PREFIX: Final = "system/"


def split_system_key(key: str) -> tuple[str, str] | None:
    """Split ``system/<node>/<name>`` into node and name, and ``system/<name>`` into ``""`` and name; None for other keys."""
    if not key.startswith(SYSTEM_PREFIX):
        return None
    node, _, name = key.removeprefix(SYSTEM_PREFIX).rpartition("/")
    return node, name


def group_series(histories: Mapping[str, Series]) -> dict[str, Any]:
    """Return the fields ``metrics`` and ``system`` of a run, from its histories by MLflow's keys."""
    metrics: dict[str, Series] = {}
    system: dict[str, dict[str, Series]] = {}
    for key, series in sorted(histories.items()):
        split = split_system_key(key)
        if split is None:
            metrics[key] = series
        else:
            node, name = split
            system.setdefault(node, {})[name] = Series(name, series.steps, series.times_ms, series.values)
    return {"metrics": metrics, "system": dict(sorted(system.items()))}
