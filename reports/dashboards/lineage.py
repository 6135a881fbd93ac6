"""The lineage dashboard: from datasets through runs to model versions, by CID."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from ..figures import Cell, Column, Dashboard, Edge, LineagePanel, Node, Section, TablePanel
from ..numbers import shown
from .naming import link_of_cid, link_of_run, link_of_source, name_runs
from .notes import notes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..data import DatasetInput, ModelVersion, ReportData, Run
    from ..figures import NodeKind

MAX_NODES: Final = 60
"""Most nodes of the graph. The table has all of them."""

_SENTENCE: Final = "Which datasets each run read, and which model versions were made from it, each with its CID."


def plot_lineage(data: ReportData) -> Dashboard:
    """Return the lineage dashboard of all runs: the graph and a table."""
    runs = data.runs
    sections = (Section("Lineage", (build_lineage(data, runs), build_lineage_table(data, runs))),)
    sentence = "Where the models are from: datasets, runs and model versions by content address."
    return Dashboard("lineage", f"Lineage: {shown(data.title)}", sentence, sections, notes_of(data, max(len(runs), 1)))


def build_lineage(data: ReportData, runs: Sequence[Run]) -> LineagePanel:
    """Return the graph of runs, of the datasets that they read, and of the model versions that were made from them."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str, str], Edge] = {}
    labels = name_runs(runs)
    for run in runs:
        nodes[_id("run", run.run_id)] = Node(
            _id("run", run.run_id), "run", labels[run.run_id], f"run {run.run_id[:8]}", "", link_of_run(data, run)
        )
        for dataset in run.datasets:
            node = _dataset_node(dataset)
            nodes.setdefault(node.node_id, node)
            _add(edges, node.node_id, _id("run", run.run_id), dataset.context)
    places: dict[str, int] = {}  # runs in the order of their versions, so that few lines cross
    for version in _versions_of(data, runs):
        node = _version_node(version)
        nodes[node.node_id] = node
        places.setdefault(_id("run", version.run_id), len(places))
        if version.run_id in labels:
            _add(edges, _id("run", version.run_id), node.node_id, "")
    order = {"dataset": 0, "run": 1, "model": 2}
    kept = sorted(
        list(nodes.values())[:MAX_NODES],
        key=lambda node: (order[node.kind], places.get(node.node_id, len(places))),
    )
    names = {node.node_id for node in kept}
    more = (
        f" {MAX_NODES} of {len(nodes):,} nodes are drawn; the table has all of them." if len(nodes) > MAX_NODES else ""
    )
    return LineagePanel(
        panel_id="lineage-graph",
        title="Datasets, runs and models",
        sentence=f"{_SENTENCE}{more}",
        empty_reason="" if nodes else "The report has no runs.",
        nodes=tuple(kept),
        edges=tuple(edge for edge in edges.values() if edge.source in names and edge.target in names),
    )


def build_lineage_table(data: ReportData, runs: Sequence[Run]) -> TablePanel:
    """Return the same as a table: a row for each dataset of each run, and for each model version."""
    labels = name_runs(runs)
    rows = [
        _row("dataset", _dataset_node(dataset), labels[run.run_id], dataset.context)
        for run in runs
        for dataset in run.datasets
    ]
    rows += [
        _row("model", _version_node(version), labels.get(version.run_id, shown(version.run_id)), version.status)
        for version in _versions_of(data, runs)
    ]
    return TablePanel(
        panel_id="lineage-table",
        title="Datasets and model versions",
        sentence="Each dataset that was read and each model version that was made, with its run and its full CID.",
        empty_reason="" if rows else "The runs have neither datasets nor model versions.",
        columns=tuple(Column(title) for title in ("name", "kind", "detail", "run", "use", "CID or source")),
        rows=tuple(rows),
    )


def _row(kind: NodeKind, node: Node, run: str, use: str) -> tuple[Cell, ...]:
    where = node.cid or shown(node.link, 100) or "not recorded"
    return (Cell(node.label), Cell(kind), Cell(node.detail), Cell(run), Cell(shown(use)), Cell(where, link=node.link))


def _dataset_node(dataset: DatasetInput) -> Node:
    doubt = "; the record does not prove the CID" if dataset.cid and not dataset.cid_is_certain else ""
    return Node(
        _id("dataset", dataset.cid or f"{dataset.name} {dataset.digest} {dataset.source}"),
        "dataset",
        shown(dataset.name),
        shown(f"digest {dataset.digest}{doubt}", 80),
        dataset.cid or "",
        link_of_cid(dataset.cid) or link_of_source(dataset.source),
    )


def _version_node(version: ModelVersion) -> Node:
    aliases = ", ".join(f"@{alias}" for alias in version.aliases)
    return Node(
        _id("model", f"{version.name} {version.version}"),
        "model",
        shown(f"{version.name}, version {version.version}"),
        shown(aliases or ("frozen" if version.cid else "not frozen")),
        version.cid or "",
        link_of_cid(version.cid),
    )


def _versions_of(data: ReportData, runs: Sequence[Run]) -> Iterable[ModelVersion]:
    """Return the versions that were made from the runs, and those whose run is not in the report."""
    wanted = {run.run_id for run in runs}
    known = {run.run_id for run in data.runs}
    return [version for version in data.versions if version.run_id in wanted or version.run_id not in known]


def _add(edges: dict[tuple[str, str, str], Edge], source: str, target: str, label: str) -> None:
    edges[source, target, label] = Edge(source, target, shown(label, 24))


def _id(kind: NodeKind, name: str) -> str:
    """Return an id without hostile text."""
    return f"{kind}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"
