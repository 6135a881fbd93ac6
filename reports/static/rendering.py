"""SVG and PNG of panels and of whole dashboards. Equal data gives equal bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import Image

from ..numbers import shown
from .extremes import leave_out_extremes
from .headings import build_page_heading, build_section_heading
from .panels import WIDE_INCHES, build_figure, is_wide
from .style import own_style
from .svg import Drawing, page_svg, single_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..figures import Dashboard, Panel

    Pixels = NDArray[np.uint8]

Format = Literal["svg", "png"]
FORMATS: Final[tuple[Format, ...]] = ("svg", "png")
DPI: Final = 110
"""Pixels of a PNG an inch."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A figure of a page, which is built when it is drawn.

    Attributes:
        name: unique on the page.
        build: returns the figure.
        title: for screen readers; ``""`` for headings, which they read as text.
        description: the same.
        is_wide: whether it takes the whole width.
    """

    name: str
    build: Callable[[], Figure]
    title: str = ""
    description: str = ""
    is_wide: bool = True


def render_panel(panel: Panel, kind: Format) -> bytes:
    """Return a panel as SVG or PNG."""
    return _finish(*_draw(_part_of(panel), kind))


def render_dashboard(dashboard: Dashboard, kind: Format) -> bytes:
    """Return a whole dashboard as one SVG or PNG, with its findings, its notes and the headings of its sections."""
    parts = list(_parts_of(dashboard))
    return _compose(dashboard, parts, [_draw(part, kind) for part in parts])


def render_all(dashboard: Dashboard, kind: Format) -> tuple[bytes, dict[str, bytes]]:
    """Return a whole dashboard, and each of its panels that has data by its id. Each panel is drawn once."""
    parts = list(_parts_of(dashboard))
    drawn = [_draw(part, kind) for part in parts]
    filled = {panel.panel_id for panel in dashboard.panels if not panel.is_empty}
    panels = {part.name: _finish(*found) for part, found in zip(parts, drawn, strict=True) if part.name in filled}
    return _compose(dashboard, parts, drawn), panels


def _finish(drawing: Drawing, pixels: Pixels | None) -> bytes:
    return single_svg(drawing).encode() if pixels is None else _to_png(pixels)


def _compose(dashboard: Dashboard, parts: Sequence[_Part], drawn: Sequence[tuple[Drawing, Pixels | None]]) -> bytes:
    drawings, height = _place(parts, [drawing for drawing, _ in drawn])
    images = [pixels for _, pixels in drawn if pixels is not None]
    if not images:
        title, sentence = shown(dashboard.title, 200), shown(dashboard.sentence, 2000)
        return page_svg(drawings, WIDE_INCHES, height, title, sentence).encode()
    page = np.full((round(height * DPI) + 1, round(WIDE_INCHES * DPI) + 1, 3), 255, np.uint8)
    for drawing, pixels in zip(drawings, images, strict=True):
        top, left = round(drawing.top * DPI), round(drawing.left * DPI)
        room = page[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        room[:] = pixels[: room.shape[0], : room.shape[1]]
    return _to_png(page)


def describe(panel: Panel) -> str:
    """Return what a screen reader says of a panel: its sentence, its findings, or why it has no data."""
    reason = f"No data: {panel.empty_reason}" if panel.is_empty else ""
    texts = [panel.sentence, reason, *(finding.sentence for finding in panel.findings)]
    return shown(" ".join(text for text in texts if text), 4000)


def _parts_of(dashboard: Dashboard) -> Iterator[_Part]:
    yield _Part("page", lambda: build_page_heading(dashboard))
    for number, section in enumerate(dashboard.sections):
        yield _Part(f"section-{number}", lambda title=section.title: build_section_heading(title))  # type: ignore[misc]
        yield from map(_part_of, section.panels)


def _part_of(panel: Panel) -> _Part:
    panel = leave_out_extremes(panel)
    return _Part(panel.panel_id, lambda: build_figure(panel), shown(panel.title, 200), describe(panel), is_wide(panel))


def _draw(part: _Part, kind: Format) -> tuple[Drawing, Pixels | None]:
    """Return the drawing with its size, without a place, and its pixels if it is a PNG."""
    with own_style(part.name):
        figure = part.build()
        width, height = (float(size) for size in figure.get_size_inches())
        drawing = Drawing("", part.name, part.title, part.description, 0, 0, width, height)
        if kind == "png":
            return drawing, _draw_pixels(figure)
        return replace(drawing, svg=_draw_svg(figure)), None


def _place(parts: Sequence[_Part], drawings: Sequence[Drawing]) -> tuple[list[Drawing], float]:
    """Return the drawings with their places, two narrow ones side by side, and the height of the page."""
    placed: list[Drawing] = []
    top = row_height = 0.0
    is_right = False
    for part, drawing in zip(parts, drawings, strict=True):
        if part.is_wide or not is_right:
            top, row_height = top + row_height, 0.0
        left = WIDE_INCHES / 2 if is_right and not part.is_wide else 0.0
        placed.append(replace(drawing, left=left, top=top))
        row_height = max(row_height, drawing.height)
        is_right = not part.is_wide and not is_right
    return placed, top + row_height


def _draw_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
    return buffer.getvalue()


def _draw_pixels(figure: Figure) -> Pixels:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=DPI)
    width, height = (int(size * DPI) for size in figure.get_size_inches())
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]


def _to_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", dpi=(DPI, DPI))
    return buffer.getvalue()
