"""Charts with axes: lines, bars, histograms and heat maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..numbers import format_number
from ..palette import DASHES, HEAT, LIGHT, MARKERS
from .style import GRID, MUTED, NO_DATA, SMALL, TEXT, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ..figures import Axis, BarsPanel, HeatMapPanel, HistogramPanel, Line, LinesPanel, Marker

_LONGEST_Y_LABEL: Final = 30  # characters, as high as a chart is


def draw_lines(axes: Axes, panel: LinesPanel) -> None:
    """Draw a chart of lines."""
    _set_axes(axes, panel.x, panel.y)
    for line in panel.lines:
        _draw_line(axes, line)
    _mark(axes, panel)
    _limit(axes, panel)
    if panel.has_legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=2.6, alignment="left")


def _draw_line(axes: Axes, line: Line) -> None:
    colour = LIGHT[line.colour % len(LIGHT)]
    marker = MARKERS[line.dash % len(MARKERS)]
    y = np.where(np.isfinite(line.y), line.y, np.nan)
    if line.is_points:
        axes.plot(line.x, y, linestyle="none", marker=marker, color=colour, markersize=5, alpha=0.8)
        return
    dash = DASHES[line.dash % len(DASHES)]
    style: tuple[int, tuple[float, ...]] | str = (0, dash) if dash else "-"
    axes.plot(
        line.x,
        y,
        label=_legend(line.name),
        color=colour,
        linestyle=style,
        drawstyle="steps-post" if line.is_step else "default",
        marker=marker if line.is_marked else None,
        markersize=3.5,
    )
    alone = _isolated(y)
    if not line.is_marked and len(alone):
        axes.plot(line.x[alone], y[alone], linestyle="none", marker=marker, color=colour, markersize=3.5)


def _legend(name: str) -> str:
    """Return a name for the legend. matplotlib leaves names out that start with ``_``, so a thin space comes before it."""
    text = literal(name, 40)
    return f"\u200a{text}" if text.startswith("_") else text


def _isolated(y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of values between gaps, which a line does not show."""
    is_value = np.concatenate([[False], np.isfinite(y), [False]])
    return np.flatnonzero(is_value[1:-1] & ~is_value[:-2] & ~is_value[2:])


def _limit(axes: Axes, panel: LinesPanel) -> None:
    """Use the limits of the panel; without them, start at 0 where a part of the axis would mislead."""
    if panel.y.low is not None or panel.y.high is not None:
        low, high = panel.y.low, panel.y.high
        span = (high or 0.0) - (low or 0.0)
        axes.set_ylim(low if low is None else low - 0.02 * span, high if high is None else high + 0.02 * span)
        return
    if panel.starts_at_zero:
        axes.set_ylim(0.0, axes.get_ylim()[1] * 1.03 or 1.0)


def draw_bars(axes: Axes, panel: BarsPanel) -> None:
    """Draw bars, with their values above them."""
    _set_axes(axes, panel.x, panel.y)
    places = np.arange(len(panel.categories))
    width = 0.7 / max(len(panel.groups), 1)
    for number, group in enumerate(panel.groups):
        offset = (number - (len(panel.groups) - 1) / 2) * width
        bars = axes.bar(
            places + offset, group.values, width, label=_legend(group.name), color=LIGHT[group.colour % len(LIGHT)]
        )
        if len(places) * len(panel.groups) <= 16:
            axes.bar_label(bars, [_label(value) for value in group.values], size=SMALL, padding=2)
    axes.set_xticks(places, [literal(name, 16) for name in panel.categories])
    if sum(len(name) for name in panel.categories) > 60:
        axes.tick_params("x", rotation=45)
    axes.grid(visible=False, axis="x")
    beside = max(0.0, (3 - len(places)) / 2)  # few bars stay narrow
    axes.set_xlim(-0.6 - beside, len(places) - 0.4 + beside)
    axes.margins(y=0.15)
    if len(panel.groups) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _label(value: float) -> str:
    return format_number(float(value)) if np.isfinite(value) else ""


def draw_histogram(axes: Axes, panel: HistogramPanel) -> None:
    """Draw a histogram with its percentiles."""
    _set_axes(axes, panel.x, panel.y)
    axes.bar(
        panel.edges[:-1],
        panel.counts,
        np.diff(panel.edges),
        align="edge",
        color=LIGHT[0],
        alpha=0.75,
        edgecolor="white",
        linewidth=0.5,
    )
    _mark(axes, panel)


def _mark(axes: Axes, panel: LinesPanel | HistogramPanel) -> None:
    """Draw vertical lines, and say what they are beside the chart, where labels cannot overlap."""
    for number, marker in enumerate(panel.markers):
        axes.axvline(
            marker.value,
            color=TEXT if not marker.note else MUTED,
            linestyle=(0, DASHES[(number + 1) % len(DASHES)] or (1, 0)),
            linewidth=1.2,
            label=_name(marker, panel.x),
        )
    if panel.markers:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=2.6)


def _name(marker: Marker, x: Axis) -> str:
    name = f"{literal(marker.label)}: {format_number(marker.value, x.unit)}"
    return f"{name}\n({literal(marker.note)})" if marker.note else name


def draw_heat_map(axes: Axes, panel: HeatMapPanel) -> None:
    """Draw a heat map with its scale."""
    colours = LinearSegmentedColormap.from_list("heat", list(HEAT)).with_extremes(bad=NO_DATA)
    rows = np.arange(len(panel.rows) + 1)
    mesh = axes.pcolormesh(
        panel.edges, rows, np.ma.masked_invalid(panel.values), cmap=colours, vmin=panel.scale.low, vmax=panel.scale.high
    )
    axes.invert_yaxis()
    axes.set_yticks(rows[:-1] + 0.5, [literal(name, 28) for name in panel.rows])
    axes.tick_params("y", length=0)
    axes.grid(visible=False)
    axes.set_xlabel(literal(panel.x.text))
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.05)
    bar.set_label(literal(panel.scale.text))
    bar.outline.set_visible(False)


def _set_axes(axes: Axes, x: Axis, y: Axis) -> None:
    axes.set_xlabel(literal(x.text, 50))
    axes.set_ylabel(literal(y.text, _LONGEST_Y_LABEL))
    axes.grid(color=GRID)
    if x.is_log:
        axes.set_xscale("log")
    if y.is_log:
        axes.set_yscale("log")
    for axis, drawn, count in ((x, axes.xaxis, 7), (y, axes.yaxis, 6)):
        drawn.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10], integer=axis.is_whole))
        if axis.is_log:
            drawn.set_minor_formatter(NullFormatter())
            drawn.set_major_locator(_FewOnLog())
        drawn.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))


class _FewOnLog(LogLocator):
    """Ticks of a logarithmic scale: more of them in a decade, the fewer decades there are."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the places of the ticks."""
        decades = np.log10(vmax / vmin) if vmin > 0 else 1.0
        self.set_params(subs=(1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,), numticks=8)
        return super().tick_values(vmin, vmax)
