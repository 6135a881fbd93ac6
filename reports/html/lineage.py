"""Lineage graphs as columns of cards. Each card says in words what its arrows mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..figures import LineagePanel, Node

_TITLES: Final = {"dataset": "Datasets", "run": "Runs", "model": "Model versions"}
_MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Card:
    """A node of the graph.

    Attributes:
        node: the node.
        relations: for example ``reads digits (training)``.
        targets: the cards that its arrows lead to.
    """

    node: Node
    relations: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)


def build_columns(panel: LineagePanel) -> list[tuple[str, list[Card]]]:
    """Return the title and the cards of each column: datasets, runs, model versions."""
    cards = {node.node_id: Card(node) for node in panel.nodes}
    for edge in panel.edges:
        source, target = cards[edge.source], cards[edge.target]
        use = f" ({edge.label})" if edge.label else ""
        word = "reads" if source.node.kind == "dataset" else "made by"
        target.relations.append(f"{word} {source.node.label}{use}")
        source.targets.append(edge.target)
    for card in cards.values():
        more = len(card.relations) - _MAX_NAMED
        if more > 0:
            card.relations[_MAX_NAMED:] = [f"and {more:,} more"]
    columns = [(title, [card for card in cards.values() if card.node.kind == kind]) for kind, title in _TITLES.items()]
    return [(title, found) for title, found in columns if found]
