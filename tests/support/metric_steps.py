"""The steps of the metrics of a run in MLflow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def steps_in_mlflow(client: MlflowClient, run_id: str) -> dict[str, list[int]]:
    """Return the steps of all metrics of a run, as MLflow tells them."""
    keys = client.get_run(run_id).data.metrics
    return {key: sorted(point.step for point in client.get_metric_history(run_id, key)) for key in keys}


def repeated(found: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the steps that a metric has more than once."""
    counted = {key: [step for step, number in Counter(found[key]).items() if number > 1] for key in found}
    return {key: twice for key, twice in counted.items() if twice}
