"""What a run cost: time, processor time, energy, and the samples that it got for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.training import metric_names as names

from ..figures import Fact
from ..numbers import format_number, format_seconds, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..data import Run, Series

_MAX_NODES: Final = 4
_MIN_SAMPLES: Final = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What was measured of a run; None for what was not.

    Attributes:
        cpu_seconds: processor time of the sampled processes.
        gpu_joules: energy of the GPUs, from samples of their power.
        gpu_percent: mean use of the GPUs.
        samples: training samples of all epochs.
    """

    cpu_seconds: float | None
    gpu_joules: float | None
    gpu_percent: float | None
    samples: float | None


def measure_usage(run: Run) -> Usage:
    """Return the use of resources of a run, integrated over its samples."""
    cpu = [_integrate(series) for name, series in _system(run) if name == "process_cpu_percentage"]
    power = [_integrate(series) for name, series in _system(run) if _is_gpu(name, "power_usage_watts")]
    use = [
        series.finite.mean()
        for name, series in _system(run)
        if _is_gpu(name, "utilization_percentage") and len(series.finite)
    ]
    cpu_seconds = [found / 100 for found in cpu if found is not None]
    joules = [found for found in power if found is not None]
    return Usage(
        sum(cpu_seconds) if cpu_seconds else None,
        sum(joules) if joules else None,
        float(np.mean(use)) if use else None,
        _count_samples(run),
    )


def costs_of(run: Run) -> list[Fact]:
    """Return the facts of what a run cost."""
    usage, facts = measure_usage(run), []
    if run.duration_seconds is not None:
        facts.append(Fact("Wall time", format_seconds(run.duration_seconds)))
    if run.system:
        facts.append(Fact("Machine", _describe_nodes(run)))
    if usage.cpu_seconds is not None:
        facts.append(Fact("CPU time", f"{format_seconds(usage.cpu_seconds)} of the sampled processes"))
    if usage.gpu_percent is not None:
        facts.append(Fact("GPU use", f"{format_number(usage.gpu_percent, '%')} on average"))
    if usage.gpu_joules is not None:
        facts.append(Fact("GPU energy", format_number(usage.gpu_joules / 3600, "Wh")))
    return facts


def efficiency_of(run: Run) -> list[Fact]:
    """Return the facts of what a run got for its cost."""
    usage = measure_usage(run)
    facts = costs_of(run)
    if usage.samples is None:
        return facts
    facts.append(Fact("Training samples", format_number(round(usage.samples))))
    if usage.cpu_seconds:
        facts.append(Fact("Samples per CPU second", format_number(usage.samples / usage.cpu_seconds)))
    if usage.gpu_joules:
        facts.append(Fact("Samples per joule of the GPUs", format_number(usage.samples / usage.gpu_joules)))
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


def _integrate(series: Series) -> float | None:
    """Return the integral over time in seconds, by trapezoids between finite samples; None with fewer than 2."""
    order = np.argsort(series.times_ms, kind="stable")
    seconds, values = series.times_ms[order] / 1000.0, series.values[order]
    kept = np.isfinite(values)
    if kept.sum() < _MIN_SAMPLES:
        return None
    height, at = values[kept], seconds[kept]
    return float(np.sum((height[1:] + height[:-1]) / 2 * np.diff(at)))


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
