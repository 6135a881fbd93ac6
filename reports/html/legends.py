"""Legends of charts: what the script's traces are called, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..figures import BarsPanel, HistogramPanel, LinesPanel
from ..numbers import format_number
from ..palette import LIGHT
from .drawings import dash_array

if TYPE_CHECKING:
    from ..figures import Marker
    from .chart_data import Chart


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a legend.

    Attributes:
        name: the text.
        colour: the number of the colour; -1 for the vertical line of a marker.
        dash: the dash pattern, as SVG has it.
        is_filled: whether it is an area or a point, not a line.
        trace: the number of the trace that the reader can hide; -1 for a marker.
    """

    name: str
    colour: int
    dash: str = "none"
    is_filled: bool = False
    trace: int = -1


def build_legend(panel: Chart) -> list[Entry]:
    """Return the entries of a chart's legend; without any where the title or the axis says the same."""
    if isinstance(panel, BarsPanel):
        entries = [
            Entry(group.name, group.colour % len(LIGHT), is_filled=True, trace=number)
            for number, group in enumerate(panel.groups)
        ]
        return entries if len(entries) > 1 else []
    if isinstance(panel, HistogramPanel):
        return _entries_of(panel.markers, panel.x.unit)
    return [*_entries_of_lines(panel), *_entries_of(panel.markers, panel.x.unit)]


def _entries_of_lines(panel: LinesPanel) -> list[Entry]:
    if not panel.has_legend:
        return []
    return [
        Entry(line.name, line.colour % len(LIGHT), dash_array(line.dash), line.is_points, number)
        for number, line in enumerate(panel.lines)
    ]


def _entries_of(markers: tuple[Marker, ...], unit: str) -> list[Entry]:
    return [
        Entry(
            f"{marker.label}: {format_number(marker.value, unit)}{f' ({marker.note})' if marker.note else ''}",
            -1,
            dash_array(number + 1),
        )
        for number, marker in enumerate(markers)
    ]
