"""The report as JSON, format 1. docs/report-format.md describes every field."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from .data import Latency, ReportData, Run, Series

FORMAT: Final = "mlflow-ipfs report"
VERSION: Final = 1
FILE: Final = "report.json"


def write_json(data: ReportData, directory: Path) -> list[Path]:
    """Write ``report.json``. Return its path."""
    file = directory / FILE
    file.write_bytes(to_json(data))
    return [file]


def to_json(data: ReportData) -> bytes:
    """Return the report as strict JSON in ASCII. Equal data gives equal bytes."""
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "title": data.title,
        "source": data.source,
        "runs": [_describe_run(run) for run in data.runs],
        "versions": [asdict(version) for version in data.versions],
        "missing": [asdict(one) for one in data.missing],
    }
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _describe_run(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "experiment_id": run.experiment_id,
        "experiment": run.experiment,
        "status": run.status,
        "started_ms": run.started_ms,
        "ended_ms": run.ended_ms,
        "user": run.user,
        "artifact_uri": run.artifact_uri,
        "params": run.params,
        "tags": run.tags,
        "datasets": [asdict(dataset) for dataset in run.datasets],
        "latencies": [_describe_latency(latency) for latency in run.latencies],
        "metrics": {key: _describe_series(series) for key, series in run.metrics.items()},
        "system": {
            node: {name: _describe_series(series) for name, series in group.items()}
            for node, group in run.system.items()
        },
    }


def _describe_latency(latency: Latency) -> dict[str, Any]:
    recorded = json.loads(latency.recorder.to_json(device=latency.device, stage=latency.stage))
    return {"path": latency.path, **recorded}


def _describe_series(series: Series) -> dict[str, list[Any]]:
    values = series.values.tolist()
    if len(series.finite) < len(series):
        values = [value if math.isfinite(value) else _name_of(value) for value in values]
    return {"steps": series.steps.tolist(), "times_ms": series.times_ms.tolist(), "values": values}


def _name_of(value: float) -> str:
    """Return the text for a value that JSON does not have. Python's ``float`` and JavaScript's ``Number`` read it."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
