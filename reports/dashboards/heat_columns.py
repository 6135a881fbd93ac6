"""The columns of a heat map over time: their edges, and the mean of the samples in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HEAT_COLUMNS: Final = 60
GAP_FACTOR: Final = 2.5  # samples that are further apart than so many usual intervals leave a gap


def divide(times: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the edges of columns as wide as the usual interval of the samples, or of ``HEAT_COLUMNS`` wider ones.

    Samples are in the middle of columns, so that small delays leave no gap.
    """
    if not times:
        return np.array([0.0, 1.0])
    every = np.concatenate(times)
    intervals = np.concatenate([np.diff(np.sort(found)) for found in times])
    usual = float(np.median(intervals)) if len(intervals) else 0.0
    low, span = float(every.min()), float(np.ptp(every))
    width = max(usual, span / (HEAT_COLUMNS - 1)) or 1.0
    count = int(span / width + 0.5) + 1
    return np.linspace(low - width / 2, low + width * (count - 0.5), count + 1)


def mean_by_column(
    times: NDArray[np.float64], values: NDArray[np.float64], edges: NDArray[np.float64], least_usual: float
) -> NDArray[np.float64]:
    """Return the mean of the samples in each column; NaN where the sampling paused.

    Args:
        times: the times of the samples.
        values: the samples.
        edges: the edges of the columns, in the unit of the times.
        least_usual: the least usual interval, in that unit: shorter ones make no gap of a longer one.
    """
    kept = np.isfinite(values)
    sums = np.histogram(times[kept], edges, weights=values[kept])[0]
    counts = np.histogram(times[kept], edges)[0]
    middles = (edges[:-1] + edges[1:]) / 2
    return np.where(counts > 0, sums / np.maximum(counts, 1), _bridge(times, values, middles, least_usual))


def _bridge(
    times: NDArray[np.float64], values: NDArray[np.float64], places: NDArray[np.float64], least_usual: float
) -> NDArray[np.float64]:
    """Return the values between samples, in lines from one to the next; NaN in gaps and beside a value that is not finite.

    Intervals vary, so a column may have no sample although the sampling went on.
    """
    order = np.argsort(times, kind="stable")
    times, values = times[order], np.where(np.isfinite(values), values, np.nan)[order]
    intervals = np.diff(times)
    usual = float(np.median(intervals)) if len(intervals) else 0.0
    after = np.searchsorted(times, places)
    since = places - times[np.maximum(after - 1, 0)]
    until = times[np.minimum(after, len(times) - 1)] - places
    is_outside = (after == 0) | (after == len(times))
    distance = np.where(is_outside, np.abs(since), since + until)  # outside, both are to the same sample
    is_near = distance <= np.where(is_outside, usual, GAP_FACTOR * max(usual, least_usual))
    return np.where(is_near, np.interp(places, times, values), np.nan)
