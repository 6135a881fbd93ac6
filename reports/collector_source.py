"""A metrics collector of this process as the source of a report: training code without MLflow gets the same report."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.training.metric_names import LATENCY_ARTIFACT

from .data import Latency, ReportData, Run, Series, group_series

if TYPE_CHECKING:
    from mlflow_ipfs.training import MetricsCollector

RUN_ID: Final = "metrics-collector"


def read_collector(collector: MetricsCollector, title: str = "metrics of this process") -> ReportData:
    """Return what a metrics collector has recorded so far, as a report of one run.

    Args:
        collector: the collector; it stays open.
        title: what the report is about.
    """
    points: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for record in collector.list_records():
        points[record.key].append((record.step, round(record.timestamp * 1000), record.value))
    times = [time for found in points.values() for _, time, _ in found]
    run = Run(
        RUN_ID,
        name=title,
        started_ms=min(times, default=None),
        ended_ms=max(times, default=None),
        latencies=tuple(
            Latency(f"{model}/{LATENCY_ARTIFACT}", "", "", recorder)
            for model, recorder in sorted(collector.copy_latencies().items())
        ),
        **group_series({key: Series.build(key, *zip(*found, strict=True)) for key, found in points.items()}),
    )
    return ReportData(title, runs=(run,))
