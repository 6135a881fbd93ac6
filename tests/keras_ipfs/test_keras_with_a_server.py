"""A real training by Keras, and what the API of a real MLflow server tells about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient

from keras_ipfs import InferenceMetrics, IPFSCallback
from support.keras_models import BATCH_SIZE, IS_TENSORFLOW, KERAS_MARKS, X, Y
from support.metric_steps import repeated, steps_in_mlflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

pytestmark = [*KERAS_MARKS, pytest.mark.server]

EPOCHS = 3
EPOCH_KEYS = {
    *("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch", "epoch_seconds", "validation_seconds"),
    *("samples_per_second", "batches_per_second", *(() if IS_TENSORFLOW else ("data_wait_share",))),
}
INFERENCE_KEYS = {
    f"inference/predict/{name}"
    for name in (
        *("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_max_ms", "first_batch_ms"),
        *("measured_batches", "warmup_batches", "samples_per_second", "peak_memory_mb"),
    )
}


@pytest.fixture
def client(mlflow_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
        *("--registry-store-uri", f"ipfs+sqlite:///{tmp_path}/mlflow.db"),
        *("--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
        workers=1,
    )
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "keras")
    mlflow.set_tracking_uri(server.url)
    yield MlflowClient()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def test_all_metrics_are_in_the_api_at_the_right_steps(client: MlflowClient, model: Any, tmp_path: Path) -> None:
    data = {"x": X, "y": Y, "batch_size": BATCH_SIZE, "verbose": 0}
    callback = IPFSCallback(batch_size=BATCH_SIZE, resource_seconds=0.5)
    history = model.fit(**data, epochs=EPOCHS, validation_data=(X, Y), callbacks=[callback]).history
    tested = model.evaluate(**data, callbacks=[callback], return_dict=True)
    model.predict(X, batch_size=4, verbose=0, callbacks=[InferenceMetrics()])

    experiment = client.get_experiment_by_name("keras")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    found = steps_in_mlflow(client, run.info.run_id)
    assert run.info.status == "FINISHED"
    assert repeated(found) == {}
    assert {key for key in found if found[key] == list(range(EPOCHS))} >= EPOCH_KEYS
    assert {key for key in found if key.startswith("inference/")} == INFERENCE_KEYS
    assert all(found[key] == [EPOCHS - 1] for key in {*INFERENCE_KEYS, "test_loss", "test_accuracy"})
    assert any(key.startswith("system/") and key.endswith("/cpu_utilization_percentage") for key in found)
    for key in ("loss", "val_loss"):
        points = sorted(client.get_metric_history(run.info.run_id, key), key=lambda point: point.step)
        assert [point.value for point in points] == pytest.approx(history[key])
    assert run.data.metrics["test_loss"] == pytest.approx(tested["loss"])
    file = client.download_artifacts(run.info.run_id, "inference/predict/latency.json", str(tmp_path))
    assert json.loads(Path(file).read_text())["loop"] == "closed"
