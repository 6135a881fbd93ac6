"""Downsampling that keeps spikes: the extremes of each bucket of points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from .figures import MAX_POINTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDS: Final = 2  # the first and the last point are kept


def downsample(
    x: NDArray[np.float64], y: NDArray[np.float64], limit: int = MAX_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most ``limit`` points, in their order: the first, the last, and of each bucket the extremes and one gap.

    So a spike of one point is kept at its place and with its value, and a NaN or an infinity among finite values stays a gap.

    Args:
        x: the places of the points.
        y: their values. NaN and infinity are gaps.
        limit: the most points, at least 5.
    """
    if len(y) <= limit:
        return x, y
    kept = select_points(y, limit)
    return x[kept], y[kept]


def select_points(y: NDArray[np.float64], limit: int) -> NDArray[np.intp]:
    """Return the ascending indices of the points that ``downsample`` keeps, for more points than ``limit``."""
    inner = y[1:-1]
    finite = np.isfinite(inner)
    per_bucket = 2 if finite.all() else 3
    size = -(-len(inner) // ((limit - _ENDS) // per_bucket))
    bucket_count = -(-len(inner) // size)
    padded = np.full(bucket_count * size, np.nan)
    padded[: len(inner)] = inner
    rows = padded.reshape(bucket_count, size)
    starts = np.arange(bucket_count) * size + 1
    is_value = np.isfinite(rows)
    has_value = is_value.any(axis=1)
    found = [
        (starts + np.where(is_value, rows, np.inf).argmin(axis=1))[has_value],
        (starts + np.where(is_value, rows, -np.inf).argmax(axis=1))[has_value],
    ]
    if per_bucket == 3:
        is_gap = ~is_value
        is_gap.reshape(-1)[len(inner) :] = False  # the padding
        found.append((starts + is_gap.argmax(axis=1))[is_gap.any(axis=1)])
    return np.unique(np.concatenate([[0], *found, [len(y) - 1]]))
