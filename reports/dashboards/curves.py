"""Charts of metric histories: the x axis, the scale, and the lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.training import metric_names as names

from ..downsampling import downsample
from ..figures import Axis, Finding, Line, LinesPanel
from ..metric_roles import group_keys, parse_key
from ..numbers import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..data import Run, Series

LOG_RATIO: Final = 50.0
"""A positive metric that falls or rises by more than this factor has a logarithmic scale."""

NO_FINITE: Final = "All its values are NaN or infinite."


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A history in a chart.

    Attributes:
        run: its run.
        series: the history.
        name: the legend.
        colour: as in ``Line``.
        dash: as in ``Line``.
        factor: what the values are multiplied by, for example 100 for a share in percent.
    """

    run: Run
    series: Series
    name: str
    colour: int = 0
    dash: int = 0
    factor: float = 1.0


def build_lines_panel(
    panel_id: str,
    title: str,
    sentence: str,
    curves: Sequence[Curve],
    y: Axis,
    *,
    findings: Sequence[Finding] = (),
    empty_reason: str = "",
) -> LinesPanel:
    """Return a chart of histories by epoch if each has one point an epoch, else by step.

    Args:
        panel_id: as in the panel.
        title: as in the panel.
        sentence: as in the panel.
        curves: the histories.
        y: the y axis. Its scale becomes logarithmic where it helps.
        findings: as in the panel.
        empty_reason: why there are no curves.
    """
    x, places = choose_x(curves)
    lines = [build_line(curve, place) for curve, place in zip(curves, places, strict=True)]
    if lines and not any(np.isfinite(line.y).any() for line in lines):
        empty_reason = NO_FINITE
    return LinesPanel(
        panel_id=panel_id,
        title=title,
        sentence=sentence,
        findings=tuple(findings),
        empty_reason=empty_reason if not lines or empty_reason == NO_FINITE else "",
        x=x,
        y=choose_scale(y, lines),
        lines=tuple(lines),
    )


def build_line(curve: Curve, places: NDArray[np.float64]) -> Line:
    """Return the line of a history."""
    x, y = downsample(places, curve.series.values * curve.factor)
    return Line(shown(curve.name), x, y, len(curve.series), curve.colour, curve.dash)


def choose_x(curves: Sequence[Curve]) -> tuple[Axis, list[NDArray[np.float64]]]:
    """Return the x axis, and the places of the points of each curve."""
    epochs = [_epochs_of(curve.run, curve.series) for curve in curves]
    found = [places for places in epochs if places is not None]
    if curves and len(found) == len(curves):
        return Axis("epoch"), found
    has_epochs = any(names.EPOCH in curve.run.metrics for curve in curves)
    label = "optimizer step" if has_epochs else "step"
    return Axis(label), [curve.series.steps.astype(np.float64) for curve in curves]


def place_in_chart(run: Run, key: str) -> tuple[str, NDArray[np.float64]]:
    """Return what the x axis counts in the chart of a key, and the places of its points: those of its group count too."""
    role = parse_key(key)
    group = [other for other in group_keys(run.metrics).get((role.model, role.quantity), []) if len(run.metrics[other])]
    keys = [key, *group]
    axis, places = choose_x([Curve(run, run.metrics[other], other) for other in keys])
    return axis.label, places[0]


def choose_scale(y: Axis, lines: Sequence[Line]) -> Axis:
    """Return the axis, logarithmic if all values are positive, without a unit and differ by more than ``LOG_RATIO``.

    Times and rates start at 0, so that their heights can be compared.
    """
    finite = [line.y[np.isfinite(line.y)] for line in lines]
    values = np.concatenate(finite) if finite else np.empty(0)
    if y.unit or not len(values) or values.min() <= 0 or values.max() / LOG_RATIO <= values.min():
        return y
    return Axis(y.label, y.unit, is_log=True)


def seconds_of(run: Run, series: Series) -> NDArray[np.float64]:
    """Return the times of the points in seconds after the start of the run."""
    start = run.started_ms if run.started_ms is not None else (int(series.times_ms.min()) if len(series) else 0)
    return (series.times_ms - start) / 1000.0


def _epochs_of(run: Run, series: Series) -> NDArray[np.float64] | None:
    """Return the epoch of each point; None if it is not known, or an epoch has several points."""
    steps = series.steps
    clock = run.metrics.get(names.EPOCH)
    if clock is not None and len(clock):
        known, first = np.unique(clock.steps, return_index=True)
        epochs = clock.values[first]
    else:
        found = next((run.metrics[key] for key in run.metrics if key.endswith(names.EPOCH_SECONDS)), None)
        if found is None or not len(found):
            return None
        known = np.unique(found.steps)
        epochs = known.astype(np.float64)
    places = np.minimum(np.searchsorted(known, steps), len(known) - 1)
    if not np.array_equal(known[places], steps):
        return None
    mapped = epochs[places]
    return mapped if len(np.unique(mapped)) == len(mapped) and np.isfinite(mapped).all() else None
