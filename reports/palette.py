"""Colours, dash patterns and markers of the charts, distinguishable with colour blindness and in grey.

The colours are those of Okabe and Ito that have a contrast of at least 3:1 to the background. Lines differ by dash and marker
too, so that no information is in the colour alone.
"""

from __future__ import annotations

from typing import Final

LIGHT: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")
"""Colours on white: blue, vermilion, green, purple, black."""

DARK: Final = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442")
"""Colours on a dark background, in the same order."""

DASHES: Final = ((), (6.0, 2.5), (1.5, 1.5), (7.0, 2.0, 1.5, 2.0), (3.0, 1.5))
"""Lengths of dashes and gaps in units of the line width; ``()`` is a solid line."""

MARKERS: Final = ("o", "s", "^", "D", "v")
"""Markers of short lines, by matplotlib's names."""

HEAT: Final = ("#FFFFFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B")
"""A scale from low to high, monotonic in lightness."""
