"""The style of static figures: matplotlib's defaults with a few changes, whatever the user's settings are."""

from __future__ import annotations

import textwrap
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

from ..numbers import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

TEXT: Final = "#1A1A1A"
MUTED: Final = "#595959"
GRID: Final = "#DDDDDD"
NO_DATA: Final = "#E3E3E3"
PROBLEM: Final = "#A61B00"
TITLE_SIZE: Final = 10.5
SMALL: Final = 8.0

_CHANGES: Final[dict[str, Any]] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "figure.facecolor": "white",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Bitstream Vera Sans"],  # as wide as each other
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "text.color": TEXT,
    "text.hinting": "no_hinting",
    "xtick.color": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.color": MUTED,
    "ytick.labelsize": SMALL,
}
_lock = threading.RLock()


@contextmanager
def own_style(salt: str) -> Iterator[None]:
    """Draw with this style. Other threads wait, because matplotlib's settings belong to the process.

    Args:
        salt: makes the ids in an SVG reproducible, and different from those of other panels on a page.
    """
    defaults: dict[Any, Any] = dict(mpl.rcParamsDefault)
    for key in [key for key in defaults if "backend" in key or key == "interactive"]:  # no part of the style
        del defaults[key]
    with _lock, warnings.catch_warnings(), mpl.rc_context(defaults | _CHANGES | {"svg.hashsalt": salt}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # SVG has the text all the same
        yield


def literal(text: str, longest: int = 60) -> str:
    """Return text that matplotlib draws as it is: without its notation for formulas, control characters or line breaks."""
    return shown(text, longest).replace("$", r"\$")


def explain(axes: Axes, reason: str) -> None:
    """Write why a panel has no data, in place of the data."""
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        wrap(f"No data: {reason}", 60),
        ha="center",
        va="center",
        color=MUTED,
        transform=axes.transAxes,
        size=9,
    )


def wrap(text: str, width: int, max_lines: int = 4) -> str:
    """Return a text on several lines of up to ``width`` characters, shortened after ``max_lines``. Long words are broken."""
    lines = textwrap.wrap(shown(text, 2000), width, break_long_words=True) or [""]
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1][: width - 1]}…"]
    return "\n".join(lines).replace("$", r"\$")
