"""``mlflow.pytorch.autolog`` beside our callbacks, in real Trainers with a real MLflow database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import mlflow
import pytest

pytest.importorskip("pytorch_lightning")

from lightning_ipfs import IPFSCallback
from support.lightning_models import BATCHES, LAST, MARKS, build_model, loader, trainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = MARKS


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    """A client of an empty database, with autolog on. Models are not logged: that takes most of the time."""
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.pytorch.autolog(log_models=False, checkpoint=False, log_every_n_step=2)
    yield mlflow.MlflowClient()
    mlflow.pytorch.autolog(disable=True)
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def steps_of_run(client: mlflow.MlflowClient) -> dict[str, list[int]]:
    """Return the steps of each metric of the only run, and check that no metric has a step twice."""
    [run] = client.search_runs(["0"])
    found = {key: [point.step for point in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
    assert {key: steps for key, steps in found.items() if max(Counter(steps).values()) > 1} == {}
    return found


def test_every_metric_is_logged_once_and_in_one_run(client: mlflow.MlflowClient, package: str) -> None:
    training = trainer(IPFSCallback(resource_seconds=0.5), package=package)
    model = build_model(package)
    training.fit(model, loader(), loader(2))
    found = steps_of_run(client)
    assert found["train_loss_epoch"] == found["val_loss"] == [0, 1], "of autolog, whose step is the epoch"
    assert found["epoch_seconds"] == found["validation_seconds"] == [LAST, LAST + BATCHES], "of our callback"
    assert found["epoch"] == [LAST, LAST + BATCHES]
    assert any(key.startswith("system/") for key in found)
    training.test(model, loader(8), verbose=False)
    training.validate(model, loader(2), verbose=False)
    found = steps_of_run(client)
    assert found["inference/test/measured_batches"] == [2 * BATCHES], "in the run of autolog, although it has ended"
    assert found["test_loss"] == [0], "of autolog"
    assert found["val_loss"] == [0, 1, 2 * BATCHES], "of our callback: autolog does not log trainer.validate"
    assert [run.info.status for run in client.search_runs(["0"])] == ["FINISHED"]


def test_the_users_run_stays_active(client: mlflow.MlflowClient) -> None:
    with mlflow.start_run() as run:
        trainer(IPFSCallback(resource_seconds=None)).fit(build_model(), loader(), loader(2))
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
    assert steps_of_run(client)["val_loss"] == [0, 1]


def test_a_trainer_that_autolog_has_not_patched_is_logged_by_the_callback(client: mlflow.MlflowClient) -> None:
    trainer(IPFSCallback(resource_seconds=None)).test(build_model(), loader(2), verbose=False)
    assert steps_of_run(client)["test_loss"] == [0]
