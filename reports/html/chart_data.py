"""The charts of a page as JSON, for the script of the page. Arrays are shared, and base64 where it is shorter."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..figures import BarsPanel, HistogramPanel, LinesPanel
from ..numbers import format_number, shown
from ..palette import DARK, DASHES, LIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..figures import Axis, Marker, Panel

    Array = NDArray[np.float64]

Chart = LinesPanel | BarsPanel | HistogramPanel
"""The panels that the script draws."""

_LONGEST_Y_LABEL: Final = 34  # characters, as high as a chart is
_MAX_LABELLED_BARS: Final = 16
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def to_json(value: object) -> str:
    """Return JSON that no HTML parser takes for markup. It is ASCII, and has ``null`` for NaN."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True).translate(
        _ESCAPES
    )


def build_chart_data(panels: Iterable[Panel]) -> dict[str, Any]:
    """Return the data of all charts that are not empty, with the palettes."""
    arrays = _Arrays()
    charts = {
        panel.panel_id: _build_chart(panel, arrays)
        for panel in panels
        if isinstance(panel, Chart) and not panel.is_empty
    }
    return {
        "arrays": arrays.encoded,
        "charts": charts,
        "colours": {"light": LIGHT, "dark": DARK},
        "dashes": [",".join(f"{length * 1.5:g}px" for length in dash) or "solid" for dash in DASHES],
    }


def encode_array(values: Array) -> dict[str, str] | list[float | None]:
    """Return an array as a list or, where it is shorter and loses nothing, as base64 of numbers of fewer bytes."""
    finite = np.isfinite(values)
    numbers = [_plain(float(value)) if known else None for value, known in zip(values, finite, strict=True)]
    whole = bool(finite.all()) and bool((values == np.round(values)).all()) and bool((np.abs(values) < 2**31).all())
    gapped = np.where(finite, values, np.nan)
    with np.errstate(over="ignore"):
        is_single = np.array_equal(gapped.astype("<f4").astype("<f8"), gapped, equal_nan=True)
    kind = "i4" if whole else "f4" if is_single else "f8"
    packed = base64.b64encode(gapped.astype(f"<{kind}").tobytes()).decode("ascii")
    return {"kind": kind, "base64": packed} if len(packed) < len(to_json(numbers)) else numbers


def _plain(value: float) -> float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


class _Arrays:
    """The arrays of a page, each once."""

    def __init__(self) -> None:
        self.encoded: list[dict[str, str] | list[float | None]] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, values: Array) -> int:
        """Return the number of an array."""
        key = values.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self.encoded)
            self.encoded.append(encode_array(values))
        return self._numbers[key]


def _build_chart(panel: Chart, arrays: _Arrays) -> dict[str, Any]:
    if isinstance(panel, LinesPanel):
        return _build_lines(panel, arrays)
    if isinstance(panel, HistogramPanel):
        return _build_histogram(panel, arrays)
    return _build_bars(panel, arrays)


def _build_lines(panel: LinesPanel, arrays: _Arrays) -> dict[str, Any]:
    lines = [
        {
            "name": shown(line.name),
            "x": arrays.add(line.x),
            "y": arrays.add(line.y),
            "colour": line.colour % len(LIGHT),
            "dash": line.dash % len(DASHES),
            "draw": "points" if line.is_points else "steps" if line.is_step else "line",
            "marked": line.is_marked,
        }
        for line in panel.lines
    ]
    return {
        "kind": "lines",
        "x": _axis(panel.x),
        "y": _axis(panel.y, _LONGEST_Y_LABEL) | {"zero": panel.starts_at_zero},
        "lines": lines,
        "markers": _markers(panel.markers),
    }


def _build_histogram(panel: HistogramPanel, arrays: _Arrays) -> dict[str, Any]:
    heights = np.concatenate([panel.counts, panel.counts[-1:]]).astype(np.float64)  # the last edge closes the last bin
    return {
        "kind": "histogram",
        "x": _axis(panel.x),
        "y": _axis(panel.y, _LONGEST_Y_LABEL) | {"zero": True},
        "edges": arrays.add(panel.edges.astype(np.float64)),
        "counts": arrays.add(heights),
        "markers": _markers(panel.markers),
    }


def _build_bars(panel: BarsPanel, arrays: _Arrays) -> dict[str, Any]:
    is_labelled = len(panel.categories) * len(panel.groups) <= _MAX_LABELLED_BARS
    groups = [
        {
            "name": shown(group.name),
            "y": arrays.add(group.values.astype(np.float64)),
            "colour": group.colour % len(LIGHT),
            "labels": [_label(float(value), panel.y.unit) for value in group.values] if is_labelled else [],
        }
        for group in panel.groups
    ]
    return {
        "kind": "bars",
        "x": _axis(panel.x),
        "y": _axis(panel.y, _LONGEST_Y_LABEL) | {"zero": True},
        "categories": [shown(name, 24) for name in panel.categories],
        "groups": groups,
    }


def _label(value: float, unit: str) -> str:
    return format_number(value, unit) if np.isfinite(value) else ""


def _markers(markers: Iterable[Marker]) -> list[dict[str, Any]]:
    return [
        {"label": shown(marker.label), "value": marker.value, "dash": (number + 1) % len(DASHES)}
        for number, marker in enumerate(markers)
        if np.isfinite(marker.value)
    ]


def _axis(axis: Axis, longest: int = 60) -> dict[str, Any]:
    return {
        "text": shown(axis.text, longest),
        "log": bool(axis.is_log),
        "low": _end(axis.low),
        "high": _end(axis.high),
        "whole": axis.is_whole,
    }


def _end(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
