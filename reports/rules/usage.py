"""Rules about data loading, resources and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import Finding
from ..numbers import format_number, format_share
from .curves import noise_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlflow_ipfs.training.latency import LatencyHistogram

    Values = NDArray[np.float64]

SLOW_DATA_SHARE: Final = 0.2
LOW_GPU_PERCENT: Final = 40.0
LOW_CPU_PERCENT: Final = 50.0
BUSY_NODE_PERCENT: Final = 80.0
FULL_MEMORY_PERCENT: Final = 95.0
GROWTH_SHARE: Final = 0.1
GROWTH_MEGABYTES: Final = 50.0
GROWTH_NOISE: Final = 5.0
GROWTH_MIN_SAMPLES: Final = 20
MIN_SAMPLES: Final = 6
LONG_TAIL_FACTOR: Final = 5.0
MIN_FOR_TAIL: Final = 100

USAGE_RULES: Final = {
    "slow-data": f"The loop waited for data in more than {SLOW_DATA_SHARE:.0%} of the time, in the median of the epochs.",
    "memory-growth": (
        f"The memory of the process grew by more than {GROWTH_SHARE:.0%}, {GROWTH_MEGABYTES:g} MB and {GROWTH_NOISE:g} times "
        "the noise in the last two thirds of the samples, evenly over them."
    ),
    "full-memory": f"The memory of a node, or of a GPU, was in use to {FULL_MEMORY_PERCENT:g}% or more.",
    "low-gpu": f"A GPU was used to less than {LOW_GPU_PERCENT:g}% on average.",
    "low-cpu": (
        f"The process used less than {LOW_CPU_PERCENT:g}% of one core in the median of the samples, on a node without a GPU that "
        f"was used to less than {BUSY_NODE_PERCENT:g}%."
    ),
    "long-tail": f"The p99 of the latency is more than {LONG_TAIL_FACTOR:g} times the median, of {MIN_FOR_TAIL} batches or more.",
}


def find_slow_data(shares: Values) -> list[Finding]:
    """Find a loop that waits for its data. The first epoch starts the loader, and counts only if it is the only one."""
    finite = shares[np.isfinite(shares)]
    counted = finite[1:] if len(finite) > 1 else finite
    if not len(counted) or (median := float(np.median(counted))) <= SLOW_DATA_SHARE:
        return []
    sentence = (
        f"The loop waited for data in {format_share(median)} of the time (median of {len(counted):,} "
        f"{'epoch' if len(counted) == 1 else 'epochs'}, threshold {format_share(SLOW_DATA_SHARE)}): load it with more workers, or prepare it before."
    )
    return [Finding("slow-data", "advice", sentence)]


def find_memory_growth(node: str, megabytes: Values) -> list[Finding]:
    """Find memory that grows evenly after the first third of the samples."""
    finite = megabytes[np.isfinite(megabytes)]
    if len(finite) < GROWTH_MIN_SAMPLES:
        return []
    late = finite[len(finite) // 3 :]
    levels = np.array([np.median(part) for part in np.array_split(late, 5)])
    growth = float(levels[-1] - levels[0])
    limit = max(GROWTH_SHARE * levels[0], GROWTH_MEGABYTES, GROWTH_NOISE * noise_of(late))
    if growth <= limit or np.diff(levels).min() < 0.5 * growth / 4:
        return []
    sentence = (
        f"The memory of the process{_on(node)} grew evenly from {format_number(levels[0], 'MB')} to "
        f"{format_number(levels[-1], 'MB')} in the last two thirds of the samples (medians of {len(late) // 5:,} samples): something may be kept that is not needed."
    )
    return [Finding("memory-growth", "advice", sentence)]


def find_full_memory(what: str, node: str, percent: Values) -> list[Finding]:
    """Find memory that was nearly used up."""
    finite = percent[np.isfinite(percent)]
    if not len(finite) or finite.max() < FULL_MEMORY_PERCENT:
        return []
    count = int((finite >= FULL_MEMORY_PERCENT).sum())
    sentence = (
        f"{what}{_on(node)} was in use to {format_number(finite.max(), '%')}: {count:,} of {len(finite):,} samples have "
        f"{FULL_MEMORY_PERCENT:g}% or more."
    )
    return [Finding("full-memory", "problem", sentence)]


def find_low_gpu(gpu: str, node: str, percent: Values) -> list[Finding]:
    """Find a GPU that was hardly used."""
    finite = percent[np.isfinite(percent)]
    if len(finite) < MIN_SAMPLES or (mean := float(finite.mean())) >= LOW_GPU_PERCENT:
        return []
    sentence = (
        f"{gpu}{_on(node)} was used to {format_number(mean, '%')} on average of {len(finite):,} samples (threshold "
        f"{LOW_GPU_PERCENT:g}%)."
    )
    return [Finding("low-gpu", "advice", sentence)]


def find_low_cpu(node: str, percent: Values, node_percent: Values) -> list[Finding]:
    """Find a process that was mostly waiting although its node was not busy. Call it for nodes without a GPU.

    Args:
        node: the node.
        percent: processor time of the process; 100% is one core.
        node_percent: use of all cores of the node.
    """
    finite, of_node = percent[np.isfinite(percent)], node_percent[np.isfinite(node_percent)]
    if len(finite) < MIN_SAMPLES or (median := float(np.median(finite))) >= LOW_CPU_PERCENT:
        return []
    if len(of_node) and np.median(of_node) >= BUSY_NODE_PERCENT:
        return []
    sentence = (
        f"The process{_on(node)} used {format_number(median, '%')} of one core in the median of {len(finite):,} samples "
        f"(threshold {LOW_CPU_PERCENT:g}%): it was mostly waiting."
    )
    return [Finding("low-cpu", "advice", sentence)]


def find_long_tail(what: str, latencies: LatencyHistogram) -> list[Finding]:
    """Find a latency whose slow batches take much longer than the median."""
    p50, p99 = latencies.percentile_ns(0.5), latencies.percentile_ns(0.99)
    if latencies.count < MIN_FOR_TAIL or p50 is None or p99 is None or p99 <= LONG_TAIL_FACTOR * p50:
        return []
    sentence = (
        f"{what}: the p99 of {format_number(p99 / 1e6, 'ms')} is {format_number(p99 / p50)} times the median of "
        f"{format_number(p50 / 1e6, 'ms')}, of {latencies.count:,} batches."
    )
    return [Finding("long-tail", "advice", sentence)]


def _on(node: str) -> str:
    return f" on {node}" if node else ""
