"""Tables of metrics, one row each, with a sparkline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..downsampling import downsample
from ..figures import Cell, Column, TablePanel
from ..numbers import format_number, shown
from .naming import name_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..data import Run, Series
    from ..figures import Finding

SPARKLINE_POINTS: Final = 40
MAX_ROWS: Final = 1000


def build_metric_table(
    runs: Sequence[Run],
    panel_id: str,
    model_id: str | None = None,
    *,
    title: str = "All metrics",
    findings: Sequence[Finding] = (),
) -> TablePanel:
    """Return a table of all metrics of the runs: the course, the last, lowest and highest value."""
    labels = name_runs(runs)
    rows = [
        row for run in runs for row in _build_rows(run.metrics, labels[run.run_id] if len(runs) > 1 else "", model_id)
    ]
    more = f" The first {MAX_ROWS:,} of {len(rows):,} are shown." if len(rows) > MAX_ROWS else ""
    heading = (Column("metric"), *((Column("run"),) if len(runs) > 1 else ()))
    return TablePanel(
        panel_id=panel_id,
        title=title,
        sentence=f"Each metric with its course, its number of points, and its last, lowest and highest value.{more}",
        findings=tuple(findings),
        empty_reason="" if rows else "The runs have no metrics.",
        columns=(
            *heading,
            Column("course", is_sparkline=True),
            Column("points", is_number=True),
            Column("last", is_number=True),
            Column("lowest", is_number=True),
            Column("highest", is_number=True),
        ),
        rows=tuple(rows[:MAX_ROWS]),
    )


def _build_rows(metrics: Mapping[str, Series], run: str, model_id: str | None) -> list[tuple[Cell, ...]]:
    return [
        (
            Cell(shown(key)),
            *((Cell(run),) if run else ()),
            sparkline_cell(series),
            Cell(f"{len(series):,}", float(len(series))),
            *(number_cell(value) for value in _ends(series)),
        )
        for key, series in metrics.items()
        if model_id is None or key.startswith(f"{model_id}/")
    ]


def _ends(series: Series) -> tuple[float, float, float]:
    """Return the last, the lowest and the highest value."""
    finite = series.finite
    last = series.last if len(series) else np.nan
    return last, float(finite.min()) if len(finite) else np.nan, float(finite.max()) if len(finite) else np.nan


def number_cell(value: float, unit: str = "") -> Cell:
    """Return a cell of a number."""
    return Cell(format_number(value, unit), value)


def sparkline_cell(series: Series | None) -> Cell:
    """Return a cell with the course of a metric; an empty one for None, and for a single point."""
    if series is None or len(series) < 2:
        return Cell("")
    first, last = (format_number(float(value)) for value in (series.values[0], series.values[-1]))
    return Cell(f"from {first} to {last}", sparkline=shorten(series.values))


def shorten(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return up to ``SPARKLINE_POINTS`` values, extremes included, in which infinity is a gap too."""
    kept = downsample(np.arange(len(values), dtype=np.float64), values, SPARKLINE_POINTS)[1]
    return np.where(np.isfinite(kept), kept, np.nan)
