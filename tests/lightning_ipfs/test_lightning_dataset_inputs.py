"""``DatasetInputs``: datasets become inputs of the run that the metrics go to, and never hold a training up."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

pytest.importorskip("pytorch_lightning")

import mlflow_ipfs
from lightning_ipfs import DatasetInputs, IPFSCallback, IPFSLogger
from support.lightning_models import MARKS, build_model, loader, trainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.run_targets import MemoryTarget

pytestmark = MARKS


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("x,y\n1,2\n" * 1000)
    return path


@pytest.fixture
def other_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database that is not the MLflow of this process."""
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    mlflow.set_tracking_uri(f"ipfs+sqlite:///{tmp_path / 'process.db'}")
    yield f"ipfs+sqlite:///{tmp_path / 'other.db'}"
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def fit(*callbacks: Any, **options: Any) -> Any:
    training = trainer(*callbacks, max_epochs=1, **options)
    training.fit(build_model(), loader(), loader(2))
    return training


def test_a_dataset_goes_to_the_run_of_the_logger(other_uri: str, dataset: Path, tmp_path: Path) -> None:
    logger = IPFSLogger("digits", tracking_uri=other_uri)
    fit(IPFSCallback([dataset], resource_seconds=None), logger=logger)
    assert not (tmp_path / "process.db").exists(), "the MLflow of the process is not asked"
    run = mlflow.MlflowClient(other_uri).get_run(str(logger.run_id))
    assert run.data.metrics["val_loss"] > 0
    assert run.inputs is not None
    [logged] = run.inputs.dataset_inputs
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]
    with mlflow_ipfs.open_store() as store:
        cid = store.add(dataset, only_hash=True).cid
        assert json.loads(logged.dataset.profile or "")["ipfs_cid"] == str(cid)
        assert store.has(cid)


def test_a_dataset_that_was_not_logged_is_named_and_tried_again_by_the_next_fit(
    target: MemoryTarget, dataset: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(mlflow_ipfs, "log_dataset", lambda path, **options: logged.append((path, options)))
    target.is_away = True
    datasets = DatasetInputs([dataset], wait_seconds=0.5)
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        training = fit(datasets, logger=IPFSLogger(close_seconds=0.2))
    assert "not logged as inputs of the run" in caplog.text
    assert str(dataset) in caplog.text
    assert logged == []
    target.is_away = False
    training.fit_loop.max_epochs = 2
    training.fit(training.lightning_module, loader())
    assert logged == [(dataset, {"context": "training", "run_id": "run-1", "tracking_uri": None})]


@pytest.mark.usefixtures("target")
def test_an_error_of_a_dataset_does_not_stop_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        training = fit(DatasetInputs([tmp_path / "none.csv"]))
    assert training.state.finished
    assert "none.csv does not exist" in caplog.text


def test_a_run_log_that_cannot_be_created_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "file/runlog"))
    with caplog.at_level(logging.WARNING, logger="lightning_ipfs"):
        training = fit(IPFSCallback([tmp_path / "data.csv"], resource_seconds=0.5))
    assert training.state.finished
    assert "the run log cannot be created" in caplog.text
