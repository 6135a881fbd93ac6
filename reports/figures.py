"""Figures as data: dashboards, their sections and panels. Renderers for HTML, SVG, PNG and text draw these and nothing else.

Every panel has a title, one sentence that says what it shows, the findings of the rules, and, if it has no data, the reason.
All text is hostile input, because it may come from MLflow: every renderer escapes it. Arrays are already downsampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

MAX_POINTS: Final = 2000
"""Most points of a line."""

_MAX_MARKED: Final = 30  # points of a line that has a marker on each
_WHOLE: Final = frozenset({"epoch", "step", "optimizer step", "batches"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What a documented rule found (``rules``).

    Attributes:
        rule: the name of the rule, for example ``divergence``.
        level: ``problem`` if the result cannot be trusted or the run failed, ``advice`` if something could be better.
        sentence: what was found, with its numbers and the threshold.
    """

    rule: str
    level: Literal["problem", "advice"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes:
        label: what it shows, without the unit.
        unit: the unit; ``""`` for a count, a share or an unknown unit.
        is_log: whether the scale is logarithmic. Then all finite values are positive.
        low: the lowest value of the scale; None: that of the data.
        high: the highest value of the scale; None: that of the data.
    """

    label: str
    unit: str = ""
    is_log: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The label with its unit and its scale, as a chart shows it."""
        said = ", ".join(part for part in (self.unit, "log scale" if self.is_log else "") if part)
        return f"{self.label} ({said})" if said else self.label

    @property
    def is_whole(self) -> bool:
        """Whether its values are counts, so that its ticks are whole numbers."""
        return self.label in _WHOLE


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A line of a chart.

    Attributes:
        name: the legend.
        x: steps, epochs or seconds, ascending.
        y: values of the same length. NaN and infinity are gaps.
        point_count: number of points before downsampling. With more than ``len(x)``, the line keeps every extreme.
        colour: number of its colour in ``palette``, from 0, without an upper limit.
        dash: number of its dash pattern and marker in ``palette``, likewise.
        is_step: whether the value holds until the next x, as in an ECDF.
        is_points: whether the points are not connected, as in a scatter plot. Then x is in any order.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    point_count: int
    colour: int = 0
    dash: int = 0
    is_step: bool = False
    is_points: bool = False

    @property
    def is_marked(self) -> bool:
        """Whether each point has a marker, because there are few."""
        return len(self.x) <= _MAX_MARKED and not self.is_step


@dataclass(frozen=True, slots=True)
class Marker:
    """A vertical line at a value, for example a percentile.

    Attributes:
        label: for example ``p99``.
        value: its place on the x axis.
        note: why the value is uncertain, for example ``of 40 batches only``; ``""`` if it is not.
    """

    label: str
    value: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """What every panel has.

    Attributes:
        panel_id: a short name of ``a-z``, ``0-9`` and ``-``, unique in its dashboard: for anchors and files.
        title: the title.
        sentence: one sentence that says what the panel shows.
        findings: what the rules found in it.
        empty_reason: why it has no data, one sentence; ``""`` if it has data.
    """

    panel_id: str
    title: str
    sentence: str
    findings: tuple[Finding, ...] = ()
    empty_reason: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it has no data."""
        return bool(self.empty_reason)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinesPanel(_Panel):
    """A chart of lines, ECDFs included.

    Attributes:
        x: the x axis.
        y: the y axis.
        lines: the lines.
        markers: vertical lines with a label, for example percentiles.
    """

    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    markers: tuple[Marker, ...] = ()

    @property
    def starts_at_zero(self) -> bool:
        """Whether the y axis starts at 0: that of sizes, times and rates, of which a part would mislead."""
        if self.y.is_log or not self.y.unit or self.y.low is not None or self.y.high is not None:
            return False
        return not any(((line.y < 0) & (line.y > -inf)).any() for line in self.lines)

    @property
    def has_legend(self) -> bool:
        """Whether the lines are named in a legend: not if the title or an axis has the name of the only one."""
        names = [line.name for line in self.lines]
        return len(names) > 1 or (bool(names) and names[0] not in {self.title, self.x.label, self.y.label})


@dataclass(frozen=True, slots=True, eq=False)
class BarGroup:
    """Bars of one colour.

    Attributes:
        name: the legend.
        values: one value for each category; NaN for no bar.
        colour: as in ``Line``.
    """

    name: str
    values: NDArray[np.float64]
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BarsPanel(_Panel):
    """Vertical bars, side by side in each category.

    Attributes:
        x: what the categories are.
        y: the axis of the values. It starts at 0.
        categories: the labels below the bars.
        groups: the bars.
    """

    x: Axis
    y: Axis
    categories: tuple[str, ...] = ()
    groups: tuple[BarGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HistogramPanel(_Panel):
    """A histogram.

    Attributes:
        x: the axis of the values.
        y: the axis of the counts.
        edges: the edges of the bins, ascending, one more than there are counts.
        counts: the count of each bin.
        markers: percentiles.
    """

    x: Axis
    y: Axis
    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    markers: tuple[Marker, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeatMapPanel(_Panel):
    """A heat map.

    Attributes:
        x: the x axis.
        edges: the edges of the columns on the x axis, ascending, one more than there are columns.
        rows: the label of each row, the first one on top.
        values: rows by columns. NaN means no data.
        scale: the axis of the colours. It has ``low`` and ``high``.
    """

    x: Axis
    edges: NDArray[np.float64]
    rows: tuple[str, ...]
    values: NDArray[np.float64]
    scale: Axis


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        unit: the unit of its numbers.
        is_number: whether it is sorted by ``Cell.value`` and aligned to the right.
        is_sparkline: whether its cells have a ``sparkline``.
    """

    title: str
    unit: str = ""
    is_number: bool = False
    is_sparkline: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown; for a sparkline, the same in words.
        value: the number to sort by; None for text. NaN and None come last.
        link: ``ipfs://…``, ``http://…`` or ``https://…``; ``""`` without a link.
        sparkline: a short series of values, NaN for gaps; None for other cells.
    """

    text: str
    value: float | None = None
    link: str = ""
    sparkline: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TablePanel(_Panel):
    """A table that the reader can sort by each column but sparklines.

    Attributes:
        columns: the columns. The first one names the row.
        rows: the cells of each row, one for each column.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact in words.

    Attributes:
        label: what it is.
        text: the value, with its unit.
        link: as in ``Cell``.
    """

    label: str
    text: str
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsPanel(_Panel):
    """A list of facts.

    Attributes:
        facts: the facts.
    """

    facts: tuple[Fact, ...] = ()


NodeKind = Literal["dataset", "run", "model"]


@dataclass(frozen=True, slots=True)
class Node:
    """A dataset, run or model version of a lineage.

    Attributes:
        node_id: unique in its panel.
        kind: what it is.
        label: its name.
        detail: a second line, for example the digest or the aliases; ``""`` without one.
        cid: its CID; ``""`` if it has none.
        link: as in ``Cell``.
    """

    node_id: str
    kind: NodeKind
    label: str
    detail: str = ""
    cid: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow of a lineage.

    Attributes:
        source: the ``node_id`` that it starts from.
        target: the ``node_id`` that it leads to.
        label: for example ``training``; ``""`` without one.
    """

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineagePanel(_Panel):
    """A graph from datasets through runs to model versions, from left to right.

    Attributes:
        nodes: in the order of their kinds.
        edges: from a dataset to a run, and from a run to a model version.
    """

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


Panel = LinesPanel | BarsPanel | HistogramPanel | HeatMapPanel | TablePanel | FactsPanel | LineagePanel


@dataclass(frozen=True, slots=True)
class Section:
    """Panels about one question.

    Attributes:
        title: the heading.
        panels: the panels.
    """

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page as data.

    Attributes:
        name: ``training``, ``inference``, ``resources``, ``comprehensive``, ``comparison`` or ``lineage``: for files.
        title: the heading.
        sentence: one sentence that says what the dashboard shows.
        sections: its sections.
        notes: what is missing in the data or was left out, one sentence each. Every renderer shows them.
    """

    name: str
    title: str
    sentence: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def panels(self) -> Iterator[Panel]:
        """The panels of all sections."""
        return (panel for section in self.sections for panel in section.panels)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all panels, each once, problems first."""
        found = dict.fromkeys(finding for panel in self.panels for finding in panel.findings)
        return tuple(sorted(found, key=lambda finding: finding.level != "problem"))
