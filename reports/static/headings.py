"""The heading of a page with its findings and notes, and the headings of its sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..palette import LIGHT
from .panels import WIDE_INCHES
from .style import MUTED, PROBLEM, TEXT, literal, wrap

if TYPE_CHECKING:
    from ..figures import Dashboard

MAX_LINES: Final = 12
_CHARACTERS: Final = 175
_LINE_INCHES: Final = 0.19
_LEFT: Final = 0.15 / WIDE_INCHES


def build_page_heading(dashboard: Dashboard) -> Figure:
    """Return the title, the sentence, all findings and the notes of a dashboard."""
    said = [
        (f"{'Problem' if finding.level == 'problem' else 'Advice'}: {finding.sentence}", finding.level == "problem")
        for finding in dashboard.findings
    ]
    said += [(f"Note: {note}", False) for note in dashboard.notes]
    more = len(said) - MAX_LINES
    if more > 0:
        said = [*said[:MAX_LINES], (f"{more:,} more are below the charts and in the other formats.", False)]
    lines = [(wrap(text, _CHARACTERS), PROBLEM if is_problem else TEXT) for text, is_problem in said]
    sentence = wrap(dashboard.sentence, _CHARACTERS)
    count = sum(text.count("\n") + 1 for text in (sentence, *(text for text, _ in lines)))
    height = 0.62 + _LINE_INCHES * count
    figure = Figure(figsize=(WIDE_INCHES, height))
    figure.text(_LEFT, 1 - 0.16 / height, literal(dashboard.title, 100), va="top", size=16, weight="bold")
    y = height - 0.54
    for text, colour in ((sentence, MUTED), *lines):
        figure.text(_LEFT, y / height, text, va="top", size=9, color=colour)
        y -= _LINE_INCHES * (text.count("\n") + 1)
    return figure


def build_section_heading(title: str) -> Figure:
    """Return the heading of a section, with a line above it."""
    figure = Figure(figsize=(WIDE_INCHES, 0.46))
    figure.add_artist(Line2D([_LEFT, 1 - _LEFT], [0.82, 0.82], color=LIGHT[0], linewidth=1.2))
    figure.text(_LEFT, 0.3, literal(title, 100), va="center", size=12.5, weight="bold", color=LIGHT[0])
    return figure
