"""The report as text for terminals: at most 80 columns, with sparklines."""

from __future__ import annotations

import textwrap
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.cli.terminal import format_count, format_size, format_time, printable
from mlflow_ipfs.training.latency import MIN_FOR_P99

from .dashboards.comparison import UNKNOWN_DIRECTION
from .dashboards.comprehensive import plot_comprehensive_dashboard
from .dashboards.inference import explain_warm_up
from .dashboards.naming import name_runs
from .dashboards.ranking import choose_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .data import Latency, ModelVersion, ReportData, Run, Series

FILE: Final = "report.txt"
COLUMNS: Final = 80
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH: Final = 10
_NAME_WIDTH: Final = 26
_MAX_ROWS: Final = 40  # metrics of one run that are shown, before names with a common prefix are counted only
_MAX_GROUPS: Final = 10
_MAX_PARAMS: Final = 30
_MAX_MISSING: Final = 20
_MAX_REASON: Final = 400  # characters
_MAX_BEST: Final = 5  # runs in the comparison
_MAX_RUNS: Final = 20  # runs that are shown in full; of more runs, the others get one line each


def write_text(data: ReportData, directory: Path) -> list[Path]:
    """Write ``report.txt``. Return its path."""
    file = directory / FILE
    file.write_text(to_text(data), encoding="utf-8")
    return [file]


def to_text(data: ReportData) -> str:
    """Return the report as text. No line is wider than 80 columns, and no control character of a name is in it."""
    return "".join(f"{fit(printable(line), COLUMNS)}\n" for line in _lines(data))


def _lines(data: ReportData) -> Iterator[str]:
    title = printable(data.title)
    yield title
    yield "=" * min(_width_of(title), COLUMNS)
    points = sum(run.point_count for run in data.runs)
    yield f"{format_count(len(data.runs), 'run')}, {format_count(points, 'point')}, from {printable(data.source) or 'this process'}"
    if data.missing:
        yield ""
        yield f"PARTIAL REPORT: {format_count(len(data.missing), 'thing')} could not be read"
        for one in data.missing[:_MAX_MISSING]:
            whose = f" of run {one.run_id}" if one.run_id and one.run_id not in one.what else ""
            text = printable(f"{one.what}{whose}: {one.reason}"[:_MAX_REASON])
            yield from textwrap.wrap(text, COLUMNS, initial_indent="  - ", subsequent_indent="    ")
        yield from _more(len(data.missing) - _MAX_MISSING, "report.json and missing.csv have them")
    for version in data.versions:
        if data.find_run(version.run_id) is None:
            yield ""
            yield from _version_lines(version)
    yield from _comparison_lines(data)
    for run in data.runs[:_MAX_RUNS]:
        yield ""
        yield from _run_lines(data, run)
    for run in data.runs[_MAX_RUNS:]:
        yield f"{printable(run.run_id)}  {fit(printable(run.name), 24)}  {run.status}"


def _comparison_lines(data: ReportData) -> Iterator[str]:
    """Yield the best runs by the main metric, of several runs; in their own order if its direction is not known."""
    main = next(iter(choose_metrics(data.runs)), None)
    if main is None or len(data.runs) < 2:
        return
    labels, runs = name_runs(data.runs), main.sort(data.runs)
    key = printable(main.key)
    yield ""
    yield f"Best runs by {key}" if main.has_direction else f"Last {key} of the runs. {UNKNOWN_DIRECTION}"
    for run in runs[:_MAX_BEST]:
        yield f"  {_pad(printable(labels[run.run_id]), _NAME_WIDTH + 2)}{_number(main.value_of(run)):>10}"
    yield from _more(len(runs) - _MAX_BEST, "the HTML report compares the runs")


def _finding_lines(data: ReportData, run: Run) -> Iterator[str]:
    """Yield what the rules found in a run."""
    for finding in plot_comprehensive_dashboard(replace(data, runs=(run,))).findings:
        text = printable(f"{finding.level}: {finding.sentence}")
        yield from textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="    ")


def _run_lines(data: ReportData, run: Run) -> Iterator[str]:
    heading = f"Run {printable(run.name) or printable(run.run_id)}"
    yield heading
    yield "-" * min(_width_of(heading), COLUMNS)
    started = format_time(None if run.started_ms is None else run.started_ms // 1000)
    took = "" if run.duration_seconds is None else f", {run.duration_seconds:,.1f} s"
    yield f"  {run.status or 'status unknown'}, started {started}{took}"
    yield f"  id {printable(run.run_id)}" + (f", experiment {printable(run.experiment)}" if run.experiment else "")
    yield from _finding_lines(data, run)
    for dataset in run.datasets:
        doubt = "" if dataset.cid is None or dataset.cid_is_certain else " (not certain)"
        yield f"  data  {printable(dataset.name)}" + (f" for {printable(dataset.context)}" if dataset.context else "")
        yield f"        ipfs://{dataset.cid}{doubt}" if dataset.cid else f"        {printable(dataset.source)}"
    for version in data.versions_of(run.run_id):
        yield from _version_lines(version)
    yield from _param_lines(run)
    yield from _metric_lines("metrics", run.metrics)
    for node, group in run.system.items():
        yield from _metric_lines(f"resources of {printable(node) or 'the node'}", group)
    for latency in run.latencies:
        yield from _latency_lines(latency)


def _version_lines(version: ModelVersion) -> Iterator[str]:
    aliases = f" ({', '.join(map(printable, version.aliases))})" if version.aliases else ""
    yield f"  model {printable(version.name)}, version {version.version}{aliases}"
    yield f"        ipfs://{version.cid}" if version.cid else f"        not frozen: {printable(version.source)}"


def _param_lines(run: Run) -> Iterator[str]:
    if not run.params:
        return
    yield ""
    yield "  params"
    shown = list(run.params.items())[:_MAX_PARAMS]
    width = min(max(_width_of(printable(name)) for name, _ in shown), _NAME_WIDTH)
    for name, value in shown:
        yield f"    {_pad(printable(name), width)}  {printable(value)}"
    yield from _more(len(run.params) - _MAX_PARAMS, "report.json and runs.csv have them")


def _metric_lines(heading: str, histories: Mapping[str, Series]) -> Iterator[str]:
    yield ""
    if not histories:
        yield f"  {heading}: none were logged"
        return
    yield "  " + _pad(heading, _NAME_WIDTH + 2) + "      last       min       max  points"
    shown = _pick(list(histories))
    for key in shown:
        yield _metric_line(key, histories[key])
    if len(shown) < len(histories):
        yield from _more(len(histories) - len(shown), "report.json and metrics.csv have them")
        left = Counter(key.rpartition("/")[0] for key in histories.keys() - set(shown))
        for prefix, count in sorted(left.items(), key=lambda one: (-one[1], one[0]))[:_MAX_GROUPS]:
            yield f"      {printable(prefix) or 'without a group'}: {count} more"


def _pick(keys: Sequence[str]) -> list[str]:
    """Return the keys to show: all of a small number, else some of each group of keys with the same prefix."""
    if len(keys) <= _MAX_ROWS:
        return list(keys)
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.rpartition("/")[0], []).append(key)
    each = max(_MAX_ROWS // len(groups), 1)
    picked = [key for group in list(groups.values())[:_MAX_ROWS] for key in group[:each]]
    return sorted(picked)


def _metric_line(key: str, series: Series) -> str:
    name = _pad(_fit_end(printable(key), _NAME_WIDTH), _NAME_WIDTH)
    if not len(series):
        return f"    {name}  no points"
    known = series.values[~np.isnan(series.values)]
    lowest, highest = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
    numbers = "".join(f"{_number(value):>10}" for value in (series.last, lowest, highest))
    count = f"{len(series):,}" if len(series) < 100_000 else f"{len(series) / 1e6:.1f}M"
    return f"    {name}{numbers}  {count:>6} {sparkline(series.values)}"


def _latency_lines(latency: Latency) -> Iterator[str]:
    recorder = latency.recorder
    yield ""
    where = f" on {printable(latency.device)}" if latency.device else ""
    yield f"  latency of {printable(latency.stage) or printable(latency.path)}{where}, closed loop"
    if not recorder.histograms:
        yield from textwrap.wrap(explain_warm_up(recorder), COLUMNS, initial_indent="    ", subsequent_indent="    ")
        return
    yield f"    {format_count(recorder.warmup_batches, 'warm-up batch', 'warm-up batches')} left out"
    yield "    batch size   batches   p50 ms    p95 ms    p99 ms    max ms   peak memory"
    for size, one in sorted(recorder.histograms.items()):
        shares = [one.percentile_ns(0.5), one.percentile_ns(0.95)]
        shares.append(one.percentile_ns(0.99) if one.count >= MIN_FOR_P99 else None)
        shares.append(float(one.max_ns))
        cells = "".join(f"{'-' if ns is None else _number(ns / 1e6):>10}" for ns in shares)
        memory = recorder.peak_memory_bytes.get(size)
        yield f"    {size:>10}{one.count:>10,}{cells[1:]}{'-' if memory is None else format_size(memory):>14}"


def _more(count: int, where: str) -> Iterator[str]:
    if count > 0:
        yield f"    … and {count:,} more; {where}"


def sparkline(values: Iterable[float], width: int = _SPARK_WIDTH) -> str:
    """Return values as bars, the highest of each part of the history, so that spikes survive; ``·`` for no finite value."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    if not len(finite):
        return "·" * min(len(array), width)
    low, high = finite.min(), finite.max()
    half = max(high / 2 - low / 2, np.finfo(np.float64).tiny)  # halves: the difference may overflow
    bars = []
    for part in np.array_split(array, min(len(array), width)):
        found = part[np.isfinite(part)]
        share = 0.0 if not len(found) else float((found.max() / 2 - low / 2) / half)
        bars.append(_SPARKS[min(int(share * len(_SPARKS)), len(_SPARKS) - 1)] if len(found) else "·")
    return "".join(bars)


def _number(value: float) -> str:
    """Return a number in at most 9 characters."""
    text = f"{value:.4g}"
    return text if len(text) <= 9 else f"{value:.2e}"


def _width_of(text: str) -> int:
    """Return the columns of a text on a terminal: East Asian characters take two, combining ones none."""
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return a text in at most ``width`` columns, with ``…`` for what does not fit."""
    if len(text) * 2 <= width or _width_of(text) <= width:
        return text
    used = 0
    for index, character in enumerate(text):
        used += _columns_of(character)
        if used > width - 1:
            return f"{text[:index]}…"
    return text


def _fit_end(text: str, width: int) -> str:
    """Return a text in at most ``width`` columns, with ``…`` before the end of a longer one: names differ at their ends."""
    if _width_of(text) <= width:
        return text
    start = len(text)
    used = 1
    while start and used + _columns_of(text[start - 1]) <= width:
        start -= 1
        used += _columns_of(text[start])
    return f"…{text[start:]}"


def _pad(text: str, width: int) -> str:
    text = fit(text, width)
    return text + " " * (width - _width_of(text))
