"""The numbers of a chart as a small table, for readers who cannot see the chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import BarsPanel, HistogramPanel, LinesPanel
from ..numbers import format_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..figures import HeatMapPanel, Line, Marker
    from .chart_data import Chart

MAX_ROWS: Final = 60
"""Most rows of a table with all values. A longer line is summarized."""


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of texts.

    Attributes:
        headings: the headings. The first column names the row.
        rows: the cells of each row.
        note: what the table leaves out; ``""`` if it is complete.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def build_table(panel: Chart | HeatMapPanel) -> DataTable:
    """Return the numbers of a chart."""
    if isinstance(panel, LinesPanel):
        return _table_of_lines(panel)
    if isinstance(panel, HistogramPanel):
        return _table_of_histogram(panel)
    if isinstance(panel, BarsPanel):
        rows = (
            (name, *(format_number(float(group.values[place])) for group in panel.groups))
            for place, name in enumerate(panel.categories)
        )
        return DataTable((panel.x.text, *(f"{group.name} ({panel.y.text})" for group in panel.groups)), tuple(rows))
    return _table_of_heat_map(panel)


def _table_of_lines(panel: LinesPanel) -> DataTable:
    lines = panel.lines
    is_shared = all(np.array_equal(line.x, lines[0].x) for line in lines)
    if lines and is_shared and len(lines[0].x) <= MAX_ROWS and not any(line.is_step for line in lines):
        headings = (panel.x.text, *(line.name if len(lines) > 1 else panel.y.text for line in lines))
        rows = tuple(
            (format_number(float(x)), *(format_number(float(line.y[place])) for line in lines))
            for place, x in enumerate(lines[0].x)
        )
        return DataTable(headings, rows)
    headings = ("line", "points", "first", "lowest", "highest", "last")
    note = f"Values of {panel.y.text}, each with its place: {panel.x.text}. All points are in the formats csv and json."
    return DataTable(headings, (*map(_summary, lines), *_rows_of(panel.markers, len(headings))), note)


def _summary(line: Line) -> tuple[str, ...]:
    finite = np.flatnonzero(np.isfinite(line.y))
    if not len(finite):
        return (line.name, f"{line.point_count:,}", *["no finite value"] * 4)
    y = line.y[finite]
    places = (finite[0], finite[y.argmin()], finite[y.argmax()], finite[-1])
    found = (f"{format_number(float(line.y[at]))} at {format_number(float(line.x[at]))}" for at in places)
    return (line.name, f"{line.point_count:,}", *found)


def _rows_of(markers: Iterable[Marker], width: int) -> Iterable[tuple[str, ...]]:
    for marker in markers:
        note = f" ({marker.note})" if marker.note else ""
        yield (f"{marker.label}{note}", format_number(marker.value), *[""] * (width - 2))


def _table_of_histogram(panel: HistogramPanel) -> DataTable:
    bins = [
        (f"{format_number(float(panel.edges[at]))} to {format_number(float(panel.edges[at + 1]))}", f"{count:,.0f}")
        for at, count in enumerate(panel.counts)
        if count > 0
    ]
    return DataTable(
        (panel.x.text, panel.y.text), (*_rows_of(panel.markers, 2), *bins), "Bins without a count are left out."
    )


def _table_of_heat_map(panel: HeatMapPanel) -> DataTable:
    rows = []
    for name, values in zip(panel.rows, panel.values, strict=True):
        finite = values[np.isfinite(values)]
        numbers = (
            [format_number(float(found)) for found in (finite.mean(), finite.min(), finite.max())]
            if len(finite)
            else ["none"] * 3
        )
        rows.append((name, *numbers))
    return DataTable(("row", "mean", "lowest", "highest"), tuple(rows), f"Values: {panel.scale.text}.")
