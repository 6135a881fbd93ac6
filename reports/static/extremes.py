"""Charts without values that are too extreme for matplotlib: the differences of such values overflow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from ..figures import Axis, BarsPanel, HeatMapPanel, HistogramPanel, LinesPanel
from ..numbers import format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..figures import Panel

    Array = NDArray[np.float64]

LARGEST: Final = 1e300
SMALLEST_ON_LOG: Final = 1e-300

_Chart = TypeVar("_Chart", LinesPanel, BarsPanel)


def leave_out_extremes(panel: Panel) -> Panel:
    """Return a panel without values beyond ``LARGEST``. Its sentence says how many were left out."""
    if panel.is_empty:
        return panel
    if isinstance(panel, LinesPanel):
        return _clean_lines(panel)
    if isinstance(panel, BarsPanel):
        values = [_leave_out(group.values.astype(np.float64), panel.y) for group in panel.groups]
        count = _count(*zip((group.values for group in panel.groups), values, strict=True))
        groups = tuple(replace(group, values=kept) for group, kept in zip(panel.groups, values, strict=True))
        return _say(replace(panel, groups=groups), count, is_drawn=any(np.isfinite(kept).any() for kept in values))
    if isinstance(panel, HistogramPanel | HeatMapPanel) and not _fits(panel):
        return replace(panel, empty_reason=f"It has values beyond {format_number(LARGEST)}.")
    return panel


def _clean_lines(panel: LinesPanel) -> LinesPanel:
    lines, count = [], 0
    for line in panel.lines:
        x = _leave_out(line.x, panel.x)
        y = np.where(np.isfinite(line.x) & ~np.isfinite(x), np.nan, _leave_out(line.y, panel.y))
        count += _count((line.y, y))
        lines.append(replace(line, x=x, y=y))
    markers = tuple(marker for marker in panel.markers if not abs(marker.value) > LARGEST)
    is_drawn = any(np.isfinite(line.y).any() for line in lines)
    return _say(replace(panel, lines=tuple(lines), markers=markers), count, is_drawn=is_drawn)


def _leave_out(values: Array, axis: Axis) -> Array:
    """Return values with NaN for those that cannot be drawn on an axis."""
    is_extreme = np.abs(values) > LARGEST
    if axis.is_log:
        is_extreme |= np.abs(values) < SMALLEST_ON_LOG
    return np.where(is_extreme, np.nan, values)


def _count(*pairs: tuple[Array, Array]) -> int:
    """Return how many finite values were left out."""
    return sum(int((np.isfinite(before) & ~np.isfinite(after)).sum()) for before, after in pairs)


def _say(panel: _Chart, count: int, *, is_drawn: bool) -> _Chart:
    if not count:
        return panel
    what = "value is" if count == 1 else "values are"
    note = f"{count:,} {what} not drawn: beyond {format_number(LARGEST)}, or too near to 0 for a logarithmic axis."
    if not is_drawn:
        return replace(panel, empty_reason=note)
    return replace(panel, sentence=f"{panel.sentence} {note}")


def _fits(panel: HistogramPanel | HeatMapPanel) -> bool:
    ends = [panel.edges]
    if isinstance(panel, HeatMapPanel):
        ends += [panel.values[np.isfinite(panel.values)], np.array([panel.scale.low or 0.0, panel.scale.high or 0.0])]
    return all(bool((np.abs(found) <= LARGEST).all()) for found in ends)
