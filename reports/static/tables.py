"""Tables and facts as text in a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..palette import LIGHT
from .style import GRID, MUTED, SMALL, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

    from ..figures import Cell, Column, FactsPanel, TablePanel

MAX_ROWS: Final = 40
MAX_COLUMNS: Final = 9
ROW_INCHES: Final = 0.21
_LONGEST_CELLS: Final = (64, 44, 30, 18)  # characters; the first limit that lets all columns fit
_PAGE_CHARACTERS: Final = 190
_NARROWEST_CHARACTERS: Final = 110.0
_COLUMN_GAP: Final = 0.015
_SPARKLINE_CHARACTERS: Final = 14


def table_inches(panel: TablePanel) -> float:
    """Return the height that a table needs below its title."""
    return (min(len(panel.rows), MAX_ROWS) + (2 if left_out(panel) else 1)) * ROW_INCHES + 0.05


def facts_inches(panel: FactsPanel) -> float:
    """Return the height that facts need below their title."""
    return max(len(panel.facts), 1) * ROW_INCHES


def left_out(panel: TablePanel) -> str:
    """Return a sentence about the rows and columns that a static table leaves out; ``""`` if it has all of them."""
    parts = []
    if len(panel.rows) > MAX_ROWS:
        parts.append(f"{len(panel.rows) - MAX_ROWS:,} more rows")
    if len(panel.columns) > MAX_COLUMNS:
        parts.append(f"{len(panel.columns) - MAX_COLUMNS:,} more columns")
    return f"{' and '.join(parts)} are in the HTML, JSON and CSV files." if parts else ""


def draw_facts(axes: Axes, panel: FactsPanel) -> None:
    """Draw facts, one a line."""
    axes.set_axis_off()
    count = max(len(panel.facts), 1)
    axes.set(xlim=(0, 1), ylim=(count, 0))
    for row, fact in enumerate(panel.facts):
        axes.text(0.0, row + 0.5, literal(fact.label, 38), va="center", color=MUTED)
        axes.text(0.24, row + 0.5, literal(fact.text, 110), va="center")


def draw_table(axes: Axes, panel: TablePanel) -> None:
    """Draw the first rows and columns of a table, with sparklines."""
    axes.set_axis_off()
    columns, rows = panel.columns[:MAX_COLUMNS], panel.rows[:MAX_ROWS]
    axes.set(xlim=(0, 1), ylim=(len(rows) + (2 if left_out(panel) else 1), 0))
    longest = _longest_cell(panel)
    widths = _widths(panel, longest)
    ends = np.cumsum([0.0, *widths]) / max(sum(widths), _NARROWEST_CHARACTERS)  # narrow tables stay narrow
    boxes = [_Box(axes, *pair, longest) for pair in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    for column, box in zip(columns, boxes, strict=True):
        box.write(column, 0.5, _heading(column)).set_color(MUTED)
    axes.plot([0, 1], [1, 1], color=MUTED, linewidth=0.8)
    for number, row in enumerate(rows):
        for column, box, cell in zip(columns, boxes, row, strict=False):
            box.draw(column, number + 1.5, cell)
        axes.plot([0, 1], [number + 2, number + 2], color=GRID, linewidth=0.5)
    if note := left_out(panel):
        axes.text(0, len(rows) + 1.5, note, va="center", color=MUTED, size=SMALL)


@dataclass(frozen=True, slots=True)
class _Box:
    """The place of a column: from ``start`` to ``end``, as shares of the width."""

    axes: Axes
    start: float
    end: float
    longest: int

    def draw(self, column: Column, y: float, cell: Cell) -> None:
        """Draw a cell."""
        if cell.sparkline is None:
            self.write(column, y, "" if column.is_sparkline else cell.text)
            return
        values = cell.sparkline
        if not np.isfinite(values).any():
            return
        values = values / 2  # the difference of extreme values would overflow
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        x = np.linspace(self.start, self.end - _COLUMN_GAP, len(values))
        self.axes.plot(x, y + 0.35 - 0.7 * ((values - low) / (high - low or 1.0)), color=LIGHT[0], linewidth=0.9)

    def write(self, column: Column, y: float, text: str) -> Text:
        """Write a text, numbers to the right."""
        place, side = (self.end - _COLUMN_GAP, "right") if column.is_number else (self.start, "left")
        return self.axes.text(place, y, literal(text, self.longest), ha=side, va="center", size=SMALL)


def _longest_cell(panel: TablePanel) -> int:
    """Return how many characters a cell may have, so that the columns fit."""
    for longest in _LONGEST_CELLS:
        if sum(_widths(panel, longest)) <= _PAGE_CHARACTERS:
            return longest
    return _LONGEST_CELLS[-1]


def _widths(panel: TablePanel, longest: int) -> list[float]:
    """Return the width of each column in characters."""
    widths = []
    for number, column in enumerate(panel.columns[:MAX_COLUMNS]):
        title = len(_heading(column))
        texts = (
            [_SPARKLINE_CHARACTERS] if column.is_sparkline else [len(row[number].text) for row in panel.rows[:MAX_ROWS]]
        )
        widths.append(min(max([title, *texts, 4]), longest) + 3.0)
    return widths


def _heading(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title
