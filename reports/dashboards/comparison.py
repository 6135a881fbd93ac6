"""The comparison dashboard: up to 50 runs in a table with sparklines, and their parameters against a metric."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import Axis, Cell, Column, Dashboard, Line, LinesPanel, Section, TablePanel
from ..metric_roles import group_keys, is_named_here, parse_key
from ..numbers import format_number, format_seconds, shown
from .curves import Curve, build_lines_panel
from .metric_table import number_cell, sparkline_cell
from .naming import link_of_run, name_runs
from .notes import notes_of
from .summary import find_failure, param_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..data import ReportData, Run, Series
    from ..figures import Panel

MAX_RUNS: Final = 50
MAX_DRAWN: Final = 5
MAX_METRICS: Final = 6
MAX_PARAMS: Final = 8
MAX_SCATTERS: Final = 4


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric by which runs are compared."""

    key: str

    @property
    def is_lower_better(self) -> bool:
        return parse_key(self.key).kind != "quality"

    def best_of(self, run: Run) -> float:
        """Return the best value of a run; NaN if it has no finite one."""
        series = run.metrics.get(self.key)
        finite = series.finite if series is not None else np.empty(0)
        if not len(finite):
            return np.nan
        return float(finite.min() if self.is_lower_better else finite.max())

    def rank(self, run: Run) -> tuple[bool, float]:
        """Return a key that sorts the best run first, and runs without the metric last."""
        best = self.best_of(run)
        return bool(np.isnan(best)), best if self.is_lower_better else -best


def plot_comparison(data: ReportData) -> Dashboard:
    """Return the comparison of up to ``MAX_RUNS`` runs."""
    sections = (Section("Comparison of runs", build_comparison_panels(data)),)
    sentence = "The runs side by side: what they were started with, and what came out."
    return Dashboard("comparison", f"Comparison: {shown(data.title)}", sentence, sections, _notes(data))


def build_comparison_panels(data: ReportData) -> tuple[Panel, ...]:
    """Return the table of runs, the curves of the best ones, and the parameters against the main metric."""
    runs = data.runs[:MAX_RUNS]
    metrics = _choose_metrics(runs)
    params = _choose_params(runs)
    table = build_run_table(data, runs, "comparison-table")
    if not metrics:
        return (table,)
    main = metrics[0]
    return (
        table,
        _build_best(runs, main),
        *_build_scatters(runs, main, params),
        _build_param_table(runs, main, params),
    )


def _notes(data: ReportData) -> tuple[str, ...]:
    notes = list(notes_of(data, len(data.runs)))
    if len(data.runs) > MAX_RUNS:
        notes.append(f"The comparison shows the first {MAX_RUNS} of {len(data.runs):,} runs.")
    return tuple(notes)


def _choose_metrics(runs: Sequence[Run]) -> list[_Metric]:
    """Return the metrics to compare, the main one first: those of most runs, validation before training, losses first."""
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        for key in run.metrics:
            counts[key] += 1
    groups = group_keys(counts)
    keys = [key for found in groups.values() for key in found]
    stages = {"validation": 0, "test": 1, "training": 2, "": 2}
    kinds = {"loss": 0, "quality": 1, "other": 2}

    def rank(key: str) -> tuple[bool, int, int]:
        role = parse_key(key)
        return counts[key] * 2 < len(runs), kinds[role.kind] // 2, stages[role.stage]

    return [_Metric(key) for key in sorted(keys, key=rank)[:MAX_METRICS]]


def _choose_params(runs: Sequence[Run]) -> list[str]:
    """Return parameters that differ between runs, those with fewer values first."""
    return _differing_params(runs)[:MAX_PARAMS]


def _differing_params(runs: Sequence[Run]) -> list[str]:
    keys = sorted({key for run in runs for key in run.params})
    values = {key: {run.params.get(key) for run in runs} for key in keys}
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: len(values[key]))


def build_run_table(data: ReportData, runs: Sequence[Run], panel_id: str) -> TablePanel:
    """Return a table of runs: the parameters that differ, the course and the best value of the metrics."""
    metrics, params = _choose_metrics(runs), _choose_params(runs)
    labels = name_runs(runs)
    rows = []
    for run in runs:
        seconds = run.duration_seconds
        time = Cell("running") if seconds is None else Cell(format_seconds(seconds), seconds)
        series: list[Series | None] = [run.metrics.get(metric.key) for metric in metrics]
        rows.append(
            (
                Cell(labels[run.run_id], link=link_of_run(data, run)),
                Cell(run.status.lower()),
                time,
                *(param_cell(run.params.get(key, "")) for key in params),
                *(
                    cell
                    for metric, found in zip(metrics, series, strict=True)
                    for cell in (sparkline_cell(found), Cell("") if found is None else number_cell(metric.best_of(run)))
                ),
            )
        )
    best = [
        column
        for metric in metrics
        for column in (
            Column(shown(metric.key), is_sparkline=True),
            Column(f"best {shown(metric.key)}", is_number=True),
        )
    ]
    return TablePanel(
        panel_id=panel_id,
        title="Runs",
        sentence=f"Each run with the parameters that differ, the course and the best value of its metrics.{_say_shown(runs, len(params))}",
        findings=tuple(finding for run in runs for finding in find_failure(run, labels[run.run_id])),
        empty_reason="" if rows else "The report has no runs.",
        columns=(
            Column("run"),
            Column("status"),
            Column("wall time", is_number=True),
            *(Column(shown(key)) for key in params),
            *best,
        ),
        rows=tuple(rows),
    )


def _say_shown(runs: Sequence[Run], param_count: int) -> str:
    """Return a sentence if parameters or metrics were left out."""
    params = len(_differing_params(runs))
    metrics = len({key for run in runs for key in run.metrics if not is_named_here(key)})
    said = [f"{param_count} of {params:,} parameters"] if params > param_count else []
    said += [f"{MAX_METRICS} of {metrics:,} metrics"] if metrics > MAX_METRICS else []
    return f" It shows {' and '.join(said)}." if said else ""


def _build_best(runs: Sequence[Run], main: _Metric) -> LinesPanel:
    labels = name_runs(runs)
    best = sorted((run for run in runs if main.key in run.metrics), key=main.rank)[:MAX_DRAWN]
    curves = [Curve(run, run.metrics[main.key], labels[run.run_id], n, n) for n, run in enumerate(best)]
    name = shown(main.key)
    lower = "lowest" if main.is_lower_better else "highest"
    sentence = f"The course of {name} in the {len(best)} runs with the {lower} best value."
    return build_lines_panel("comparison-best", f"Best runs by {name}", sentence, curves, Axis(name))


def _build_scatters(runs: Sequence[Run], main: _Metric, params: Sequence[str]) -> list[LinesPanel]:
    """Return a chart for each parameter that is a number in all runs that have it."""
    best = np.array([main.best_of(run) for run in runs])
    found: list[LinesPanel] = []
    for key in params:
        values = _numbers([run.params.get(key) for run in runs])
        if values is None:
            continue
        line = Line(shown(key), values, best, len(values), is_points=True)
        positive = values[np.isfinite(values)]
        is_log = bool(positive.min() > 0 and positive.max() >= 50 * positive.min())
        found.append(
            LinesPanel(
                panel_id=f"comparison-param-{len(found) + 1}",
                title=f"{shown(key)} against {shown(main.key)}",
                sentence=f"The best {shown(main.key)} of each run by its {shown(key)}.",
                empty_reason="" if np.isfinite(best).any() else "No run has a finite value.",
                x=Axis(shown(key), is_log=is_log),
                y=Axis(f"best {shown(main.key)}"),
                lines=(line,),
            )
        )
    return found[:MAX_SCATTERS]


def _numbers(texts: Sequence[str | None]) -> NDArray[np.float64] | None:
    """Return the numbers, NaN for None; None if a text is not a finite number, or they are all the same."""
    try:
        values = np.array([np.nan if text is None else float(text) for text in texts])
    except ValueError:
        return None
    known = values[[text is not None for text in texts]]
    return values if np.isfinite(known).all() and len(np.unique(known)) > 1 else None


def _build_param_table(runs: Sequence[Run], main: _Metric, params: Sequence[str]) -> TablePanel:
    """Return a table of the values of each parameter: how many runs have it, and how well they did."""
    pick: Callable[[NDArray[np.float64]], float] = np.nanmin if main.is_lower_better else np.nanmax
    rows = []
    for key in params:
        groups: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            groups[run.params.get(key, "not set")].append(main.best_of(run))
        for value, found in sorted(groups.items()):
            bests = np.array(found)
            has_value = bool(np.isfinite(bests).any())
            rows.append(
                (
                    Cell(shown(key)),
                    param_cell(value),
                    Cell(f"{len(bests):,}", float(len(bests))),
                    number_cell(float(pick(bests)) if has_value else np.nan),
                    number_cell(float(np.nanmedian(bests)) if has_value else np.nan),
                )
            )
    name = shown(main.key)
    return TablePanel(
        panel_id="comparison-params",
        title=f"Parameters against {name}",
        sentence=f"For each value of the parameters that differ: the runs that have it, and their best and median {name}.",
        empty_reason=""
        if rows
        else f"The runs have {'the same' if any(run.params for run in runs) else 'no'} parameters.",
        columns=(
            Column("parameter"),
            Column("value"),
            Column("runs", is_number=True),
            Column(f"best {name}", is_number=True),
            Column(f"median {name}", is_number=True),
        ),
        rows=tuple(rows),
    )


def rank_runs(data: ReportData) -> tuple[str, list[tuple[Run, float]]] | None:
    """Return the main metric, and the runs with their best value of it, the best run first; None without metrics."""
    metrics = _choose_metrics(data.runs)
    if not metrics:
        return None
    return metrics[0].key, [(run, metrics[0].best_of(run)) for run in sorted(data.runs, key=metrics[0].rank)]


def best_run(data: ReportData) -> tuple[Run, str] | None:
    """Return the run with the best main metric, and that in words; None without metrics."""
    ranked = rank_runs(data)
    if ranked is None:
        return None
    key, ((run, best), *_) = ranked
    return run, f"{shown(key)} {format_number(best)}"
