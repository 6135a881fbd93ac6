"""``DatasetInputs``: datasets become inputs of the run of a fit, and never hold a training up."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

import mlflow_ipfs
from keras_ipfs import DatasetInputs, IPFSCallback
from support.keras_models import KERAS_MARKS, fit, steps

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("x,y\n1,2\n" * 1000)
    return path


def test_a_dataset_is_an_input_of_the_run(client: MlflowClient, model: Any, dataset: Path) -> None:
    fit(model, IPFSCallback(datasets=[dataset], resource_seconds=None), epochs=1)
    [run] = client.search_runs(["0"])
    assert run.data.metrics["loss"] > 0
    assert run.inputs is not None
    [logged] = run.inputs.dataset_inputs
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    with mlflow_ipfs.open_store() as store:
        cid = store.add(dataset, only_hash=True).cid
        assert json.loads(logged.dataset.profile or "")["ipfs_cid"] == str(cid)
        assert store.has(cid)


def test_a_dataset_that_was_not_logged_is_named_and_tried_again_by_the_next_fit(
    target: MemoryTarget,
    model: Any,
    dataset: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[Any] = []
    failing = [True]

    def log(path: Path, **options: Any) -> None:
        if failing:
            failing.clear()
            msg = "MLflow is away"
            raise OSError(msg)
        logged.append((path, options["context"]))

    monkeypatch.setattr(mlflow_ipfs, "log_dataset", log)
    callback = DatasetInputs([dataset], context="fine-tuning")
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        fit(model, callback, IPFSCallback(resource_seconds=None), epochs=1)
    assert f"not logged as inputs of the run: {dataset}" in caplog.text
    assert steps(target, "loss") == [0]
    fit(model, callback, epochs=1)
    assert logged == [(dataset, "fine-tuning")]
