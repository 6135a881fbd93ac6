"""What the page draws as plain SVG: heat maps, sparklines and the swatches of legends."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..downsampling import downsample
from ..numbers import format_number
from ..palette import DASHES, HEAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..figures import HeatMapPanel

SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 24
_SPARK_POINTS: Final = 120
_MARGIN: Final = 2.0
_LEVELS: Final = 20
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class HeatCell:
    """Neighbouring columns of a heat map with one colour.

    Attributes:
        start: the first column.
        width: how many columns.
        colour: the fill.
    """

    start: int
    width: int
    colour: str


def heat_rows(panel: HeatMapPanel) -> list[tuple[str, list[HeatCell]]]:
    """Return the label and the cells of each row. Columns without data have no cell."""
    low, high = panel.scale.low or 0.0, panel.scale.high or 1.0
    share = np.clip((panel.values - low) / ((high - low) or 1.0), 0.0, 1.0)
    levels = np.where(np.isfinite(share), np.round(share * _LEVELS), -1).astype(int)
    return [(name, list(_merge(row))) for name, row in zip(panel.rows, levels, strict=True)]


def _merge(levels: NDArray[np.int_]) -> Iterator[HeatCell]:
    starts = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    for start, end in itertools.pairwise(starts):
        if end > start and levels[start] >= 0:
            yield HeatCell(start, end - start, _heat_colour(levels[start] / _LEVELS))


def _heat_colour(share: float) -> str:
    place = share * (len(HEAT) - 1)
    left = min(int(place), len(HEAT) - 2)
    ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in HEAT[left : left + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - left)):02x}" for a, b in zip(*ends, strict=True))


def ticks_of(panel: HeatMapPanel) -> list[tuple[str, float]]:
    """Return the round labels below a heat map, each with its place in percent of the width."""
    low, high = float(panel.edges[0]), float(panel.edges[-1])
    rough = (high - low) / _TICKS
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    places = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return [(format_number(float(place)), 100 * float((place - low) / (high - low))) for place in places]


def spark_path(values: NDArray[np.float64]) -> str:
    """Return the path of a sparkline with gaps. A value between gaps is a dot."""
    x, y = downsample(np.arange(len(values), dtype=np.float64), np.asarray(values, np.float64), _SPARK_POINTS)
    finite = np.isfinite(y)
    if not finite.any():
        return ""
    low, high = y[finite].min(), y[finite].max()
    across = _MARGIN + x * ((SPARK_WIDTH - 2 * _MARGIN) / max(len(values) - 1, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        up = (y / 2 - low / 2) / ((high / 2 - low / 2) or 1.0) if high > low else np.full(len(y), 0.5)
    down = SPARK_HEIGHT - _MARGIN - up * (SPARK_HEIGHT - 2 * _MARGIN)
    parts = []
    for at in np.flatnonzero(finite):
        starts = at == 0 or not finite[at - 1]
        parts.append(f"{'M' if starts else 'L'}{across[at]:.1f} {down[at]:.1f}")
        if starts and (at + 1 == len(y) or not finite[at + 1]):
            parts.append("h.1")
    return "".join(parts)


def dash_array(number: int, scale: float = 1.5) -> str:
    """Return a dash pattern as an attribute of SVG; ``none`` for a solid line."""
    return " ".join(f"{length * scale:g}" for length in DASHES[number % len(DASHES)]) or "none"
