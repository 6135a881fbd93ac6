"""Lineage graphs: boxes in three columns, and arrows between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ..palette import LIGHT
from .style import MUTED, SMALL, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..figures import LineagePanel, Node

NODE_INCHES: Final = 0.78
_KINDS: Final = ("dataset", "run", "model")
_HEADINGS: Final = {"dataset": "Datasets", "run": "Runs", "model": "Model versions"}
_COLOURS: Final = {"dataset": LIGHT[2], "run": LIGHT[0], "model": LIGHT[1]}
_WIDTH, _HEIGHT = 0.27, 0.74
_LEFT: Final = {"dataset": 0.0, "run": 0.365, "model": 0.73}


def graph_inches(panel: LineagePanel) -> float:
    """Return the height that a graph needs below its title."""
    return (_tallest(panel) + 0.45) * NODE_INCHES


def draw_lineage(axes: Axes, panel: LineagePanel) -> None:
    """Draw a graph, with the links of its nodes in an SVG."""
    axes.set_axis_off()
    tallest = _tallest(panel)
    axes.set(xlim=(-0.005, 1.005), ylim=(tallest + 0.05, -0.4))
    places = {}
    for kind in _KINDS:
        nodes = [node for node in panel.nodes if node.kind == kind]
        axes.text(_LEFT[kind], -0.2, _HEADINGS[kind] if nodes else "", color=MUTED, va="center", size=SMALL)
        for number, node in enumerate(nodes):
            places[node.node_id] = _LEFT[kind], number + 0.5 + (tallest - len(nodes)) / 2
            _draw_node(axes, node, *places[node.node_id])
    for edge in panel.edges:
        (x, y), (end_x, end_y) = places[edge.source], places[edge.target]
        axes.add_patch(
            FancyArrowPatch(
                (x + _WIDTH, y),
                (end_x, end_y),
                arrowstyle="-|>",
                mutation_scale=9,
                color=MUTED,
                linewidth=1.0,
                shrinkA=3,
                shrinkB=3,
                connectionstyle="arc3,rad=0",
            )
        )
        if edge.label and len(panel.edges) <= 12:
            middle = (x + _WIDTH + end_x) / 2, (y + end_y) / 2 - 0.1
            axes.text(*middle, literal(edge.label, 13), ha="center", va="center", size=7, color=MUTED)


def _draw_node(axes: Axes, node: Node, x: float, y: float) -> None:
    colour = _COLOURS[node.kind]
    axes.add_patch(
        FancyBboxPatch(
            (x, y - _HEIGHT / 2),
            _WIDTH,
            _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.012",
            facecolor="white",
            edgecolor=colour,
            linewidth=1.4,
            mutation_aspect=8,
            url=node.link or None,
        )
    )
    lines = [(node.label, 9.0, "black"), (node.detail, 7.0, MUTED), (_short(node.cid), 7.0, colour)]
    drawn = [line for line in lines if line[0]]
    for number, (text, size, shade) in enumerate(drawn):
        height = y + (number - (len(drawn) - 1) / 2) * _HEIGHT * 0.29
        axes.text(
            x + 0.012,
            height,
            literal(text, 34 if size > 8 else 46),
            va="center",
            size=size,
            color=shade,
            url=node.link or None,
        )


def _short(cid: str) -> str:
    return f"{cid[:16]}…{cid[-10:]}" if len(cid) > 30 else cid


def _tallest(panel: LineagePanel) -> int:
    return max((sum(node.kind == kind for node in panel.nodes) for kind in _KINDS), default=1) or 1
