"""What a run cost: time, processor time, energy, and the samples that it got for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.resources import DEFAULT_INTERVAL_SECONDS

from ..figures import Fact
from ..numbers import format_number, format_seconds, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..data import Run, Series

_MAX_NODES: Final = 4
_MIN_SAMPLES: Final = 2
PAUSE_RATIO: Final = 5
"""A gap between samples that is longer than so many usual intervals is a pause: nothing is known of it."""
LEAST_USUAL_SECONDS: Final = DEFAULT_INTERVAL_SECONDS
"""The least usual interval. Those of a short run are uneven: the first samples and the last ones are closer together."""


@dataclass(frozen=True, slots=True)
class Total:
    """Integrals over time of one or more series, added up.

    Attributes:
        value: the sum of the integrals.
        seconds: the time that the samples cover, pauses left out; of several series, that of the longest.
        count: the number of series.
    """

    value: float
    seconds: float
    count: int = 1

    @property
    def period(self) -> str:
        """The time that the value is about, in words."""
        return f"in the {format_seconds(self.seconds)} that were sampled"


@dataclass(frozen=True, slots=True)
class Usage:
    """What was measured of a run; None for what was not.

    Attributes:
        cpu: processor seconds of the sampled processes.
        energy: joules of the GPUs, from samples of their power.
        gpu_percent: mean use of the GPUs.
        samples: training samples of all epochs.
    """

    cpu: Total | None
    energy: Total | None
    gpu_percent: float | None
    samples: float | None


def measure_usage(run: Run) -> Usage:
    """Return the use of resources of a run, integrated over its samples."""
    cpu = [_integrate(series, 0.01) for name, series in _system(run) if name == "process_cpu_percentage"]
    power = [_integrate(series) for name, series in _system(run) if _is_gpu(name, "power_usage_watts")]
    use = [
        _mean_over_time(series)
        for name, series in _system(run)
        if _is_gpu(name, "utilization_percentage") and len(series.finite)
    ]
    return Usage(_add(cpu), _add(power), float(np.mean(use)) if use else None, _count_samples(run))


def describe_wall_time(run: Run) -> str:
    """Return the wall time of a run in words; ``not known`` if it ended before it started, or has no start."""
    if run.duration_seconds is not None:
        return format_seconds(run.duration_seconds)
    return "running" if run.ended_ms is None else "not known"


def costs_of(run: Run) -> list[Fact]:
    """Return the facts of what a run cost."""
    usage, facts = measure_usage(run), []
    if run.ended_ms is not None:
        facts.append(Fact("Wall time", describe_wall_time(run)))
    if run.system:
        facts.append(Fact("Machine", _describe_nodes(run)))
    if usage.cpu is not None:
        processes = "the training process" if usage.cpu.count == 1 else f"{usage.cpu.count:,} training processes"
        facts.append(Fact("CPU time", f"{format_seconds(usage.cpu.value)} of {processes}, {usage.cpu.period}"))
    if usage.gpu_percent is not None:
        facts.append(Fact("GPU use", f"{format_number(usage.gpu_percent, '%')} on average"))
    if usage.energy is not None:
        energy = format_number(usage.energy.value / 3600, "Wh")
        facts.append(Fact("GPU energy", f"{energy}, {usage.energy.period}"))
    return facts


def efficiency_of(run: Run) -> list[Fact]:
    """Return the facts of what a run got for its cost."""
    usage = measure_usage(run)
    facts = costs_of(run)
    if usage.samples is None:
        return facts
    facts.append(Fact("Training samples", format_number(round(usage.samples))))
    if usage.cpu and usage.cpu.value:
        facts.append(Fact("Samples per CPU second", format_number(usage.samples / usage.cpu.value)))
    if usage.energy and usage.energy.value:
        facts.append(Fact("Samples per joule of the GPUs", format_number(usage.samples / usage.energy.value)))
    return facts


def _system(run: Run) -> Iterator[tuple[str, Series]]:
    return ((name, series) for group in run.system.values() for name, series in group.items())


def _describe_nodes(run: Run) -> str:
    """Return the names of the nodes that were sampled, and how many GPUs they have."""
    nodes = [shown(node) or "one node" for node in run.system]
    named = ", ".join(nodes[:_MAX_NODES]) + (
        f" and {len(nodes) - _MAX_NODES:,} more" if len(nodes) > _MAX_NODES else ""
    )
    gpus = sum(_is_gpu(name, "utilization_percentage") for name, _ in _system(run))
    return f"{named}, with {gpus:,} {'GPU' if gpus == 1 else 'GPUs'}" if gpus else named


def _is_gpu(name: str, what: str) -> bool:
    return name.startswith("gpu_") and name.endswith(what)


def _integrate(series: Series, factor: float = 1.0) -> Total | None:
    """Return the integral over time in seconds, by trapezoids between finite samples; None with fewer than 2.

    Pauses are left out: a run that is trained today and evaluated tomorrow used nothing in the night.
    """
    order = np.argsort(series.times_ms, kind="stable")
    seconds, values = series.times_ms[order] / 1000.0, series.values[order]
    kept = np.isfinite(values)
    if kept.sum() < _MIN_SAMPLES:
        return None
    height, widths = values[kept], np.diff(seconds[kept])
    intervals = np.diff(seconds)
    intervals = np.sort(intervals[intervals > 0])  # samples at the same time have no interval
    if len(intervals):
        typical = intervals[(len(intervals) - 1) // 2]  # the lower median: of an interval and a pause, the interval
        widths = np.where(widths <= PAUSE_RATIO * max(typical, LEAST_USUAL_SECONDS), widths, 0.0)
    areas = (height[1:] / 2 + height[:-1] / 2) * widths
    return Total(float(areas.sum()) * factor, float(widths.sum()))


def _mean_over_time(series: Series) -> float:
    """Return the mean by time: the first samples are closer together than later ones."""
    total = _integrate(series)
    return total.value / total.seconds if total is not None and total.seconds else float(series.finite.mean())


def _add(totals: Iterable[Total | None]) -> Total | None:
    found = [total for total in totals if total is not None]
    if not found:
        return None
    return Total(sum(one.value for one in found), max(one.seconds for one in found), len(found))


def _count_samples(run: Run) -> float | None:
    """Return the training samples: throughput by the time of each epoch."""
    total = None
    for key, rates in run.metrics.items():
        if key.rpartition("/")[2] != names.SAMPLES_PER_SECOND or f"/{names.INFERENCE}/" in f"/{key}":
            continue
        times = run.metrics.get(key.removesuffix(names.SAMPLES_PER_SECOND) + names.EPOCH_SECONDS)
        if times is None or not np.array_equal(times.steps, rates.steps):
            continue
        samples = rates.values * times.values
        total = (total or 0.0) + float(samples[np.isfinite(samples)].sum())
    return total
