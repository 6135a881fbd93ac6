"""The comparison dashboard: up to 50 runs in a table with sparklines, and their parameters against a metric."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import Axis, Cell, Column, Dashboard, Finding, Line, LinesPanel, Section, TablePanel
from ..metric_roles import is_named_here
from ..numbers import shown
from .costs import describe_wall_time
from .curves import Curve, build_lines_panel
from .metric_table import number_cell, sparkline_cell
from .naming import link_of_run, name_runs
from .notes import notes_of
from .ranking import MAX_METRICS, choose_metrics, select_runs
from .summary import find_failure, param_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..data import ReportData, Run, Series
    from ..figures import Panel
    from .ranking import ComparedMetric

MAX_RUNS: Final = 50
MAX_DRAWN: Final = 5
MAX_PARAMS: Final = 8
MAX_SCATTERS: Final = 4
UNKNOWN_DIRECTION: Final = "It is not known whether higher or lower is better."


def plot_comparison(data: ReportData) -> Dashboard:
    """Return the comparison of up to ``MAX_RUNS`` runs."""
    sections = (Section("Comparison of runs", build_comparison_panels(data)),)
    sentence = "The runs side by side: what they were started with, and what came out."
    notes = (*notes_of(data, len(data.runs)), *note_left_out(data))
    return Dashboard("comparison", f"Comparison: {shown(data.title)}", sentence, sections, notes)


def build_comparison_panels(data: ReportData) -> tuple[Panel, ...]:
    """Return the table of runs, the curves of the best ones, and the parameters against the main metric."""
    metrics = choose_metrics(data.runs)
    main = metrics[0] if metrics else None
    runs = select_runs(data.runs, main, MAX_DRAWN, MAX_RUNS)
    params = _choose_params(runs)
    table = build_run_table(data, runs, "comparison-table", metrics)
    if main is None:
        return (table,)
    return (
        table,
        _build_best(runs, main),
        *_build_scatters(runs, main, params),
        _build_param_table(runs, main, params),
    )


def note_left_out(data: ReportData) -> tuple[str, ...]:
    """Return a note that says which runs the comparison shows, if it does not show all of them."""
    if len(data.runs) <= MAX_RUNS:
        return ()
    main = next(iter(choose_metrics(data.runs)), None)
    which = "the first ones"
    if main is not None and main.has_direction:
        which = f"the {MAX_DRAWN} best ones by {shown(main.key)}, and the first ones of the others"
    return (f"{MAX_RUNS} of {len(data.runs):,} runs are shown in the comparison: {which}.",)


def _choose_params(runs: Sequence[Run]) -> list[str]:
    """Return parameters that differ between runs, those with fewer values first."""
    return _differing_params(runs)[:MAX_PARAMS]


def _differing_params(runs: Sequence[Run]) -> list[str]:
    keys = sorted({key for run in runs for key in run.params})
    values = {key: {run.params.get(key) for run in runs} for key in keys}
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: len(values[key]))


def build_run_table(
    data: ReportData, runs: Sequence[Run], panel_id: str, metrics: Sequence[ComparedMetric]
) -> TablePanel:
    """Return a table of runs: the parameters that differ, the course and the best value of the metrics.

    Its findings are about all runs of the data.
    """
    params, labels = _choose_params(runs), name_runs(runs)
    kinds = ("best" if metric.has_direction else "last" for metric in metrics)
    values = " or ".join(dict.fromkeys(kinds)) or "best"
    rows = []
    for run in runs:
        seconds = run.duration_seconds
        time = Cell(describe_wall_time(run), seconds)
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
                    for cell in (
                        sparkline_cell(found),
                        Cell("") if found is None else number_cell(metric.value_of(run)),
                    )
                ),
            )
        )
    best = [
        column
        for metric in metrics
        for column in (
            Column(shown(metric.key), is_sparkline=True),
            Column(metric.label, is_number=True),
        )
    ]
    return TablePanel(
        panel_id=panel_id,
        title="Runs",
        sentence=f"Each run with the parameters that differ, the course and the {values} value of its metrics.{_say_shown(runs, len(params))}",
        findings=(
            *(finding for run in runs for finding in find_failure(run, labels[run.run_id])),
            *_count_failures(data, runs),
        ),
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


def _count_failures(data: ReportData, runs: Sequence[Run]) -> list[Finding]:
    """Return a finding with the number of failed runs that are not among those shown."""
    drawn = {run.run_id for run in runs}
    others = [run for run in data.runs if run.run_id not in drawn]
    failed = sum(bool(find_failure(run, "")) for run in others)
    if not failed:
        return []
    sentence = f"{failed:,} of the {len(others):,} runs that are not shown ended as failed or killed."
    return [Finding("failed-run", "problem", sentence)]


def _say_shown(runs: Sequence[Run], param_count: int) -> str:
    """Return a sentence if parameters or metrics were left out."""
    params = len(_differing_params(runs))
    metrics = len({key for run in runs for key in run.metrics if not is_named_here(key)})
    said = [f"{param_count} of {params:,} parameters"] if params > param_count else []
    said += [f"{MAX_METRICS} of {metrics:,} metrics"] if metrics > MAX_METRICS else []
    return f" It shows {' and '.join(said)}." if said else ""


def _build_best(runs: Sequence[Run], main: ComparedMetric) -> LinesPanel:
    labels, name = name_runs(runs), shown(main.key)
    drawn = main.sort(runs)[:MAX_DRAWN]
    curves = [Curve(run, run.metrics[main.key], labels[run.run_id], n, n) for n, run in enumerate(drawn)]
    if main.has_direction:
        title, which = f"Best runs by {name}", "with the lowest" if main.is_lower_better else "with the highest"
        sentence = f"The course of {name} in the {len(drawn)} runs {which} best value."
    else:
        title = f"Runs by {name}"
        sentence = f"The course of {name} in {len(drawn)} runs. {UNKNOWN_DIRECTION}"
    return build_lines_panel("comparison-best", title, sentence, curves, Axis(name))


def _build_scatters(runs: Sequence[Run], main: ComparedMetric, params: Sequence[str]) -> list[LinesPanel]:
    """Return a chart for each parameter that is a number in all runs that have it."""
    best = np.array([main.value_of(run) for run in runs])
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
                sentence=f"The {main.label} of each run by its {shown(key)}.",
                empty_reason="" if np.isfinite(best).any() else "No run has a finite value.",
                x=Axis(shown(key), is_log=is_log),
                y=Axis(main.label),
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


def _build_param_table(runs: Sequence[Run], main: ComparedMetric, params: Sequence[str]) -> TablePanel:
    """Return a table of the values of each parameter: how many runs have it, and how well they did."""
    pick: Callable[[NDArray[np.float64]], float] = np.nanmin if main.is_lower_better else np.nanmax
    name = shown(main.key)
    rows = []
    for key in params:
        groups: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            groups[run.params.get(key, "not set")].append(main.value_of(run))
        for value, found in sorted(groups.items()):
            bests = np.array(found)
            has_value = bool(np.isfinite(bests).any())
            rows.append(
                (
                    Cell(shown(key)),
                    param_cell(value),
                    Cell(f"{len(bests):,}", float(len(bests))),
                    *([number_cell(float(pick(bests)) if has_value else np.nan)] if main.has_direction else []),
                    number_cell(float(np.nanmedian(bests)) if has_value else np.nan),
                )
            )
    what = f"their best and median {name}" if main.has_direction else f"the median of their last {name}"
    return TablePanel(
        panel_id="comparison-params",
        title=f"Parameters against {name}",
        sentence=f"For each value of the parameters that differ: the runs that have it, and {what}.",
        empty_reason=""
        if rows
        else f"The runs have {'the same' if any(run.params for run in runs) else 'no'} parameters.",
        columns=(
            Column("parameter"),
            Column("value"),
            Column("runs", is_number=True),
            *((Column(f"best {name}", is_number=True),) if main.has_direction else ()),
            Column(f"median {name}", is_number=True),
        ),
        rows=tuple(rows),
    )
