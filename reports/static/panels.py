"""One panel as a matplotlib figure: title and sentence above, the drawing, findings below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

from ..figures import BarsPanel, FactsPanel, HeatMapPanel, HistogramPanel, LineagePanel, LinesPanel, TablePanel
from .charts import draw_bars, draw_heat_map, draw_histogram, draw_lines
from .graph import draw_lineage, graph_inches
from .style import MUTED, PROBLEM, SMALL, TEXT, TITLE_SIZE, explain, literal, wrap
from .tables import draw_facts, draw_table, facts_inches, table_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..figures import Finding, Panel

NARROW_INCHES: Final = 7.2
WIDE_INCHES: Final = 14.4
_CHART_INCHES: Final = 2.7
_EMPTY_INCHES: Final = 0.55
_HEAT_ROW_INCHES: Final = 0.3
_MARGIN: Final = 0.15
_GAP: Final = 0.1  # between a drawing and the findings below it
_TITLE_INCHES: Final = 0.24
_LINE_INCHES: Final = 0.155
_CHARACTERS_PER_INCH: Final = 14.0


def is_wide(panel: Panel) -> bool:
    """Return whether a panel takes the whole width of a page."""
    return isinstance(panel, TablePanel | FactsPanel | LineagePanel | HeatMapPanel)


def build_figure(panel: Panel) -> Figure:
    """Return a panel as a figure. Call it, and save the figure, in ``own_style``."""
    width = WIDE_INCHES if is_wide(panel) else NARROW_INCHES
    sentence = _wrap(panel.sentence, width)
    findings = [(finding, _wrap(_say(finding), width)) for finding in panel.findings]
    above = _MARGIN + _TITLE_INCHES + _LINE_INCHES * _count(sentence) + 0.05
    below = sum(_LINE_INCHES * _count(text) for _, text in findings) + _MARGIN
    gap = _GAP if findings else 0.0
    height = above + _drawing_inches(panel) + gap + below

    figure = Figure(figsize=(width, height))
    left = _MARGIN / width
    top = height - _MARGIN
    figure.text(left, top / height, literal(panel.title, 90), va="top", size=TITLE_SIZE, weight="bold")
    figure.text(left, (top - _TITLE_INCHES) / height, sentence, va="top", size=SMALL, color=MUTED)
    y = below
    for finding, text in findings:
        colour = PROBLEM if finding.level == "problem" else TEXT
        figure.text(left, y / height, text, va="top", size=SMALL, color=colour)
        y -= _LINE_INCHES * _count(text)
    box = (left, (below + gap) / height, 1 - 2 * left, 1 - (above + gap + below) / height)
    _draw(figure, panel, box)
    return figure


def _draw(figure: Figure, panel: Panel, box: tuple[float, float, float, float]) -> None:
    if panel.is_empty:
        explain(figure.add_axes(box), panel.empty_reason)
        return
    if isinstance(panel, TablePanel | FactsPanel | LineagePanel):
        _draw_text(figure.add_axes(box), panel)
        return
    figure.set_layout_engine("constrained", rect=box, w_pad=0.02, h_pad=0.02)
    _draw_chart(figure.add_subplot(), panel)


def _draw_text(axes: Axes, panel: TablePanel | FactsPanel | LineagePanel) -> None:
    if isinstance(panel, TablePanel):
        draw_table(axes, panel)
    elif isinstance(panel, FactsPanel):
        draw_facts(axes, panel)
    else:
        draw_lineage(axes, panel)


def _draw_chart(axes: Axes, panel: LinesPanel | BarsPanel | HistogramPanel | HeatMapPanel) -> None:
    if isinstance(panel, LinesPanel):
        draw_lines(axes, panel)
    elif isinstance(panel, BarsPanel):
        draw_bars(axes, panel)
    elif isinstance(panel, HistogramPanel):
        draw_histogram(axes, panel)
    else:
        draw_heat_map(axes, panel)


def _drawing_inches(panel: Panel) -> float:
    if panel.is_empty:
        return _EMPTY_INCHES
    if isinstance(panel, TablePanel):
        return table_inches(panel)
    if isinstance(panel, FactsPanel):
        return facts_inches(panel)
    if isinstance(panel, LineagePanel):
        return graph_inches(panel)
    if isinstance(panel, HeatMapPanel):
        return max(len(panel.rows) * _HEAT_ROW_INCHES + 0.6, 1.5)
    return _CHART_INCHES


def _wrap(text: str, width: float) -> str:
    return wrap(text, int((width - 2 * _MARGIN) * _CHARACTERS_PER_INCH))


def _say(finding: Finding) -> str:
    return f"{'Problem' if finding.level == 'problem' else 'Advice'}: {finding.sentence}"


def _count(text: str) -> int:
    return text.count("\n") + 1
