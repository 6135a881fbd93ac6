"""Facts and parameters: what was trained, on which data, how well, what it cost, and where the model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import Cell, Column, Fact, FactsPanel, Finding, TablePanel
from ..metric_roles import group_keys, parse_key
from ..numbers import format_number, format_seconds, shown
from .costs import costs_of
from .curves import place_in_chart
from .naming import describe_dataset, format_time, link_of_cid, link_of_run, link_of_source, name_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data import ModelVersion, ReportData, Run

MAX_PARAMS: Final = 500
_MAX_RESULTS: Final = 6
_MAX_LINKS: Final = 8
_MAX_PARAMS_NAMED: Final = 8
_LONGEST_VALUE: Final = 200


def build_facts(data: ReportData, run: Run | None, panel_id: str) -> FactsPanel:
    """Return the facts of a run, or the reason why none are shown."""
    label = name_runs([run])[run.run_id] if run else ""
    return FactsPanel(
        panel_id=panel_id,
        title="Run and result",
        sentence="What was trained, on which data, how well, what it cost, and where the model is.",
        findings=tuple(find_failure(run, label)) if run else (),
        empty_reason="" if run else "The report has no runs.",
        facts=tuple(_facts_of(data, run)) if run else (),
    )


def _facts_of(data: ReportData, run: Run) -> list[Fact]:
    facts = [Fact("Run", shown(run.name or run.run_id), link_of_run(data, run))]
    if run.name:
        facts.append(Fact("Run id", shown(run.run_id)))
    if run.experiment:
        facts.append(Fact("Experiment", shown(run.experiment)))
    started = f"{run.status.lower() or 'unknown'}; started {format_time(run.started_ms)}"
    facts.append(Fact("Status", started + (f" by {shown(run.user)}" if run.user else "")))
    facts += _describe_code(run)
    for dataset in run.datasets[:_MAX_LINKS]:
        link = link_of_cid(dataset.cid) or link_of_source(dataset.source)
        facts.append(Fact("Data", f"{describe_dataset(dataset)}{f', {dataset.cid}' if dataset.cid else ''}", link))
    facts += [Fact("Result", text) for text in _results_of(run)]
    facts += costs_of(run)
    versions = data.versions_of(run.run_id)
    facts += [Fact("Model", _describe_version(version), link_of_cid(version.cid)) for version in versions[:_MAX_LINKS]]
    left_out = max(len(run.datasets) - _MAX_LINKS, 0) + max(len(versions) - _MAX_LINKS, 0)
    if left_out:
        facts.append(Fact("More", f"{left_out:,} more datasets and model versions are in the lineage."))
    return facts


def _describe_code(run: Run) -> list[Fact]:
    """Return what was run, and the parameters that it was started with."""
    facts = []
    program, commit = (run.tags.get(f"mlflow.source.{name}", "") for name in ("name", "git.commit"))
    if program:
        facts.append(Fact("Code", shown(program) + (f", commit {shown(commit)[:12]}" if commit else "")))
    if run.params:
        texts = [f"{shown(key, 40)} {shown(value, 40)}" for key, value in sorted(run.params.items())]
        more = f" and {len(texts) - _MAX_PARAMS_NAMED:,} more below" if len(texts) > _MAX_PARAMS_NAMED else ""
        facts.append(Fact("Parameters", ", ".join(texts[:_MAX_PARAMS_NAMED]) + more))
    return facts


def _results_of(run: Run) -> list[str]:
    """Return the last and the best value of losses and qualities, those of validation and test first."""
    groups = group_keys(key for key in run.metrics)
    keys = [
        key for found in groups.values() for key in found if parse_key(key).kind != "other" and len(run.metrics[key])
    ]
    rank = {"test": 0, "validation": 1, "training": 2, "": 2}
    keys.sort(key=lambda key: rank[parse_key(key).stage])
    return [_describe_result(run, key) for key in keys[:_MAX_RESULTS]]


def _describe_result(run: Run, key: str) -> str:
    series = run.metrics[key]
    text = f"{shown(key)} {format_number(series.last)}"
    finite = np.flatnonzero(np.isfinite(series.values))
    if len(finite) < 2:
        return text
    values = series.values[finite]
    best = int(finite[values.argmin() if parse_key(key).kind == "loss" else values.argmax()])
    at, places = place_in_chart(run, key)
    return f"{text} at the end, best {format_number(series.values[best])} at {at} {format_number(places[best])}"


def _describe_version(version: ModelVersion) -> str:
    aliases = f" ({', '.join(f'@{alias}' for alias in version.aliases)})" if version.aliases else ""
    where = f", {version.cid}" if version.cid else ", without a CID"
    return f"{shown(version.name)}, version {version.version}{shown(aliases)}{where}"


def find_failure(run: Run, label: str) -> list[Finding]:
    """Return a finding if the run did not finish."""
    if run.status not in {"FAILED", "KILLED"}:
        return []
    after = "" if run.duration_seconds is None else f" after {format_seconds(run.duration_seconds)}"
    return [Finding("failed-run", "problem", f"{label} ended as {run.status.lower()}{after}.")]


def build_params_table(runs: Sequence[Run], panel_id: str) -> TablePanel:
    """Return a table of the parameters, with a column for each run."""
    labels = name_runs(runs)
    keys = sorted({key for run in runs for key in run.params})
    more = f" The first {MAX_PARAMS:,} of {len(keys):,} are shown." if len(keys) > MAX_PARAMS else ""
    rows = tuple(
        (Cell(shown(key)), *(param_cell(run.params.get(key, "")) for run in runs)) for key in keys[:MAX_PARAMS]
    )
    return TablePanel(
        panel_id=panel_id,
        title="Parameters",
        sentence=f"The parameters that the {'run was' if len(runs) == 1 else 'runs were'} started with.{more}",
        empty_reason="" if rows else "The runs have no parameters.",
        columns=(Column("parameter"), *(Column(labels[run.run_id] if len(runs) > 1 else "value") for run in runs)),
        rows=rows,
    )


def param_cell(value: str) -> Cell:
    """Return a cell of a parameter, which is sorted as a number if it is one."""
    try:
        number = float(value)
    except ValueError:
        number = None
    return Cell(shown(value, _LONGEST_VALUE), number)
