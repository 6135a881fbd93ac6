"""SVG text: titles and descriptions for screen readers, and several drawings on one page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_POINTS: Final = 72
_ROOT: Final = re.compile(r"<svg[^>]*>")
_METADATA: Final = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_PROLOG: Final = '<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
_NAMESPACES: Final = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing on a page.

    Attributes:
        svg: as matplotlib has saved it.
        name: unique on the page, of ``a-z``, ``0-9`` and ``-``.
        title: for screen readers; ``""`` for a drawing of text, which they read as it is.
        description: the same.
        left: its place in inches.
        top: its place in inches.
        width: its size in inches.
        height: its size in inches.
    """

    svg: str
    name: str
    title: str
    description: str
    left: float
    top: float
    width: float
    height: float


def single_svg(drawing: Drawing) -> str:
    """Return a document with one drawing."""
    size = f'width="{_points(drawing.width)}pt" height="{_points(drawing.height)}pt"'
    return f"{_PROLOG}{_element(drawing, size)}\n"


def page_svg(drawings: Sequence[Drawing], width: float, height: float, title: str, description: str) -> str:
    """Return a document with several drawings on white. The size is in inches."""
    size = f'width="{_points(width)}pt" height="{_points(height)}pt" viewBox="0 0 {_points(width)} {_points(height)}"'
    body = "\n".join(_element(drawing, _placed(drawing)) for drawing in drawings)
    return (
        f'{_PROLOG}<svg {_NAMESPACES} {size} version="1.1">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _placed(drawing: Drawing) -> str:
    """Return the place on a page, in the units of its view box."""
    return (
        f'x="{_points(drawing.left)}" y="{_points(drawing.top)}" '
        f'width="{_points(drawing.width)}" height="{_points(drawing.height)}"'
    )


def _element(drawing: Drawing, size: str) -> str:
    found = _ROOT.search(drawing.svg)
    assert found is not None
    content = _METADATA.sub("", drawing.svg[found.end() :], count=1).rstrip()
    box = f"0 0 {_points(drawing.width)} {_points(drawing.height)}"
    root = f'<svg {_NAMESPACES} {size} viewBox="{box}" version="1.1"'
    if not drawing.title:
        return f"{root}>{content}"
    names = f"{drawing.name}-title {drawing.name}-desc"
    return (
        f'{root} role="img" aria-labelledby="{names}">\n<title id="{drawing.name}-title">{escape(drawing.title)}</title>\n'
        f'<desc id="{drawing.name}-desc">{escape(drawing.description)}</desc>{content}'
    )


def _points(inches: float) -> str:
    return f"{inches * _POINTS:.6g}"
