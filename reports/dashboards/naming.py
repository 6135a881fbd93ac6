"""How dashboards name runs, times and links."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ..numbers import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data import DatasetInput, ReportData, Run


def name_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Return a name for each run id: MLflow's name, with the start of the id where names repeat."""
    names = [run.name for run in runs]
    return {
        run.run_id: shown(run.name)
        if run.name and names.count(run.name) == 1
        else shown(f"{run.name} {run.run_id[:8]}".strip())
        for run in runs
    }


def format_time(ms: int | None) -> str:
    """Return a time in UTC to the second; ``unknown`` for None and for what no calendar has."""
    if ms is None:
        return "unknown"
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "unknown"


def link_of_cid(cid: str | None) -> str:
    """Return the link to a CID; ``""`` for None."""
    return f"ipfs://{cid}" if cid else ""


def link_of_source(source: str) -> str:
    """Return a source as a link if it is one that a reader can follow: http, https or ipfs; else ``""``.

    A URL has no control characters, and some of them cannot be written in an SVG.
    """
    if shown(source, len(source)) != source:
        return ""
    try:
        scheme = urlsplit(source).scheme
    except ValueError:
        return ""
    return source if scheme in {"http", "https", "ipfs"} else ""


def link_of_run(data: ReportData, run: Run) -> str:
    """Return the link to a run in MLflow's UI, if the data came from a server; else ``""``."""
    if not data.source.startswith(("http://", "https://")):
        return ""
    return (
        f"{data.source.rstrip('/')}/#/experiments/{quote(run.experiment_id, safe='')}/runs/{quote(run.run_id, safe='')}"
    )


def describe_dataset(dataset: DatasetInput) -> str:
    """Return a dataset's name with its context."""
    return shown(f"{dataset.name} ({dataset.context})" if dataset.context else dataset.name, 80)
