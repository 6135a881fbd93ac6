"""Numbers and names as a reader sees them, the same in every renderer."""

from __future__ import annotations

import math
import unicodedata

_LONGEST = 60
_NONCHARACTERS = "\ufffe\uffff"  # no XML document may have them
_HIDDEN = frozenset({"Cc", "Cs", "Cf", "Zl", "Zp"})  # control, surrogates, format, and separators of lines


def format_number(value: float, unit: str = "") -> str:
    """Return a number with about four digits and its unit: ``0.1235``, ``12,346 MB``, ``1.5e-05``, ``NaN``."""
    text = _digits(value)
    return f"{text}{'' if unit == '%' else ' '}{unit}" if unit else text


def _digits(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e9 or size < 1e-4:
        return f"{value:.4g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_batches(count: int, what: str = "") -> str:
    """Return a number of batches: ``1 batch``, ``1,195 measured batches``."""
    return f"{count:,} {f'{what} '.lstrip()}{'batch' if count == 1 else 'batches'}"


def format_share(share: float) -> str:
    """Return a share as a percentage: ``12%``, ``0.4%``."""
    percent = 100 * share
    return f"{percent:.1f}%" if 0 < abs(percent) < 10 else f"{percent:.0f}%"


def format_seconds(seconds: float) -> str:
    """Return a duration: ``0.52 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 120 or not math.isfinite(seconds):
        return format_number(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN or char in _NONCHARACTERS


def shown(text: str, longest: int = _LONGEST) -> str:
    """Return a name on one line, without control characters and shortened in the middle. It is not escaped."""
    clean = "".join("\ufffd" if _is_hidden(char) else char for char in text)
    if len(clean) <= longest:
        return clean
    head = (longest - 1) * 2 // 3
    return f"{clean[:head]}…{clean[len(clean) - (longest - 1 - head) :]}"
