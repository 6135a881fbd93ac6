"""The report as CSV files, for spreadsheets and other programs. docs/report-format.md describes every column.

A text that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.training.metric_names import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from .data import ReportData, Run, Series

    Cell = str | int | float | None

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_RUN_COLUMNS: Final = (
    *("run_id", "name", "experiment_id", "experiment", "status", "started_ms", "ended_ms", "user", "artifact_uri"),
)


def write_csv(data: ReportData, directory: Path) -> list[Path]:
    """Write ``runs.csv``, ``metrics.csv``, ``latencies.csv``, ``datasets.csv``, ``versions.csv`` and ``missing.csv``."""
    tables = {
        "runs.csv": _runs(data),
        "metrics.csv": _metrics(data),
        "latencies.csv": _latencies(data),
        "datasets.csv": _datasets(data),
        "versions.csv": _versions(data),
        "missing.csv": _missing(data),
    }
    files = []
    for name, rows in tables.items():
        file = directory / name
        with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(map(_cells, rows))
        files.append(file)
    return files


def _runs(data: ReportData) -> Iterator[Sequence[Cell]]:
    """Yield one row for each run, with all params and the last values of all metrics."""
    params = sorted({name for run in data.runs for name in run.params})
    metrics = sorted({key for run in data.runs for key in run.metrics})
    yield (*_RUN_COLUMNS, *(f"params.{name}" for name in params), *(f"metrics.{key}" for key in metrics))
    for run in data.runs:
        last = {key: series.last for key, series in run.metrics.items() if len(series)}
        fixed = [getattr(run, name) for name in _RUN_COLUMNS]
        yield (*fixed, *(run.params.get(name) for name in params), *(last.get(key) for key in metrics))


def _metrics(data: ReportData) -> Iterator[Sequence[Cell]]:
    """Yield one row for each point."""
    yield "run_id", "metric", "step", "time_ms", "value"
    for run in data.runs:
        for key, series in _all_series(run):
            points = zip(series.steps.tolist(), series.times_ms.tolist(), series.values.tolist(), strict=True)
            yield from ((run.run_id, key, step, time, value) for step, time, value in points)


def _all_series(run: Run) -> Iterator[tuple[str, Series]]:
    """Yield each history with its key in MLflow."""
    yield from run.metrics.items()
    for node, group in run.system.items():
        prefix = f"{SYSTEM}/{node}/" if node else f"{SYSTEM}/"
        yield from ((f"{prefix}{name}", series) for name, series in group.items())


def _latencies(data: ReportData) -> Iterator[Sequence[Cell]]:
    """Yield one row for each batch size of each inference."""
    yield (
        *("run_id", "path", "stage", "device", "batch_size", "batches", "samples", "mean_ms", "p50_ms", "p95_ms"),
        *("p99_ms", "max_ms", "peak_memory_bytes"),
    )
    for run in data.runs:
        for latency in run.latencies:
            for size, histogram in sorted(latency.recorder.histograms.items()):
                ns = [histogram.percentile_ns(share) for share in (0.5, 0.95, 0.99)]
                mean = histogram.total_ns / histogram.count / 1e6 if histogram.count else None
                yield (
                    *(run.run_id, latency.path, latency.stage, latency.device, size, histogram.count),
                    *(histogram.samples, mean, *(None if one is None else one / 1e6 for one in ns)),
                    *(histogram.max_ns / 1e6, latency.recorder.peak_memory_bytes.get(size)),
                )


def _datasets(data: ReportData) -> Iterator[Sequence[Cell]]:
    yield "run_id", "name", "context", "digest", "cid", "cid_is_certain", "size_bytes", "source"
    for run in data.runs:
        for one in run.datasets:
            certain = "true" if one.cid_is_certain else "false"
            yield run.run_id, one.name, one.context, one.digest, one.cid, certain, one.size_bytes, one.source


def _versions(data: ReportData) -> Iterator[Sequence[Cell]]:
    yield "name", "version", "aliases", "run_id", "cid", "status", "created_ms", "source"
    for one in data.versions:
        aliases = " ".join(one.aliases)
        yield one.name, one.version, aliases, one.run_id, one.cid, one.status, one.created_ms, one.source


def _missing(data: ReportData) -> Iterator[Sequence[Cell]]:
    yield "run_id", "what", "reason"
    yield from ((one.run_id, one.what, one.reason) for one in data.missing)


def _cells(row: Iterable[Cell]) -> list[Cell]:
    return [_defuse(cell) if isinstance(cell, str) else cell for cell in row]


def _defuse(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula. Numbers stay."""
    if not text.startswith(_FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
