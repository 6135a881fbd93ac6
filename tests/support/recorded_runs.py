"""Runs that MLflow recorded, with everything that a report shows of them and with values that are hard to show."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from mlflow_ipfs.binding.dataset_inputs import dataset_digest
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.training.latency import LatencyRecorder

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

EXPERIMENT: Final = "reported"
HOSTILE: Final = "</script><img src=x onerror=alert(1)>=cmd\x1b[31m"
DATASET: Final = CID.of(b"the rows")
LOSS: Final = [(3, 0.5), (1, 2.0), (2, math.nan), (-5, math.inf), (1, 1.5), (4, -math.inf)]


@dataclass(frozen=True)
class RecordedRuns:
    """Ids of the runs: one with everything, and one without metrics that is still running."""

    full: str
    empty: str


def record_runs(client: MlflowClient, directory: Path) -> RecordedRuns:
    """Record two runs in the experiment ``EXPERIMENT``, and register version 1 of ``digits`` from the first one."""
    experiment = client.create_experiment(EXPERIMENT)
    full = client.create_run(experiment, start_time=1_000_000, run_name="full").info.run_id
    metrics = [Metric("loss", value, 2_000_000 + number, step) for number, (step, value) in enumerate(LOSS)]
    metrics += [Metric("val_loss", 1.0 / (step + 1), 2_000_000 + step * 1000, step) for step in range(5)]
    metrics += [Metric("once", 7.0, 2_000_000, 0)]
    metrics += [
        Metric(f"system/{name}", 10.0 * step, 2_000_000 + step, step)
        for name in ("node-a/cpu_utilization_percentage", "node-b/cpu_utilization_percentage", "disk_usage_megabytes")
        for step in range(3)
    ]
    recorder = LatencyRecorder(warmup=1)
    for number in range(120):
        recorder.add(1_000_000 + number * 1000, batch_size=8 if number % 2 else 16, memory_bytes=5_000_000)
    metrics += [Metric(key, value, 2_000_000, 0) for key, value in recorder.metrics("inference/test").items()]
    params = [Param("lr", "0.1"), Param("huge", "x" * 5000), Param("name", HOSTILE)]
    client.log_batch(full, metrics, params, [RunTag("note", HOSTILE)])
    file = directory / "latency.json"
    file.write_bytes(recorder.to_json(device="cpu", stage="test"))
    client.log_artifact(full, str(file), "inference/test")
    source = json.dumps({"uri": f"ipfs://{DATASET}"})
    dataset = Dataset("rows", dataset_digest(DATASET), "local", source, profile=json.dumps({"size_bytes": 8}))
    other = Dataset("other", "abc", "code", json.dumps({"tags": {}}))
    client.log_inputs(full, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]), DatasetInput(other)])
    _register(client, full, directory)
    client.set_terminated(full, "FINISHED", 3_500_000)
    empty = client.create_run(experiment, start_time=5_000_000, run_name="empty").info.run_id
    return RecordedRuns(full, empty)


def _register(client: MlflowClient, run_id: str, directory: Path) -> None:
    file = directory / "MLmodel"
    file.write_text("flavors: {}\n")
    client.log_artifact(run_id, str(file), "model")
    client.create_registered_model("digits")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_model_version("digits", source, run_id=run_id, tags={"stage": "first"})
    client.set_registered_model_alias("digits", "champion", "1")
