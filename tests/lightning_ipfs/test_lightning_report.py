"""``IPFSCallback(report=…)``: the report of the run is in the run when a stage has ended, and no failure stops a training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import mlflow
import pytest

pytest.importorskip("pytorch_lightning")

from lightning_ipfs import IPFSCallback, IPFSLogger
from support.lightning_models import BATCHES, MARKS, build_model, loader, trainer
from support.mlflow_sites import client, database, empty_database, store
from support.reporters import declared_reporters, offer_reporters, only_run, page_of, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

__all__ = ["client", "database", "empty_database", "store"]
pytestmark = MARKS


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    offer_reporters(monkeypatch, declared_reporters())


def test_the_report_is_in_the_run_after_each_stage(
    client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = trainer(IPFSCallback(resource_seconds=0.2, report=tmp_path / "out"))
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        training.fit(build_model(), loader(), loader(2))
    page = page_of(only_run(client))
    assert page == (tmp_path / "out" / "report.html").read_text()
    assert "val_loss" in page
    assert "finished; started" in page
    assert "test_loss" not in page
    training.test(training.lightning_module, loader(12), verbose=False)
    page = page_of(only_run(client))
    assert "val_loss" in page
    assert "test_loss" in page
    assert warnings_of(caplog) == []


def test_with_the_logger_the_report_has_what_the_logger_sends_last(
    client: MlflowClient, tmp_path: Path, database: Path
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'process.db'}")
    logger = IPFSLogger(tracking_uri=f"ipfs+sqlite:///{database}")
    training = trainer(IPFSCallback(resource_seconds=None, report=True), logger=logger)
    logger.log_hyperparams({"width": 4321})
    training.fit(build_model(), loader(), loader(2))
    assert not (tmp_path / "process.db").exists(), "the MLflow of the process is not asked"
    mlflow.set_tracking_uri(f"ipfs+sqlite:///{database}")
    page = page_of(only_run(client))
    assert "4321" in page
    assert "train_loss_epoch" in page
    assert "finished; started" in page


def test_a_training_that_fails_has_its_report(client: MlflowClient) -> None:
    with pytest.raises(RuntimeError, match="failed"):
        trainer(IPFSCallback(resource_seconds=None, report=True)).fit(
            build_model(fail_at=BATCHES + 2), loader(), loader(2)
        )
    page = page_of(only_run(client))
    assert "ended as failed" in page
    assert "val_loss" in page


def test_an_interrupted_training_ends_at_once_and_names_the_command(
    client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(fail_at=BATCHES + 2, error=KeyboardInterrupt)
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"), pytest.raises(SystemExit):
        trainer(IPFSCallback(resource_seconds=None, report=True)).fit(model, loader(), loader(2))
    run = only_run(client)
    assert client.list_artifacts(run.info.run_id, "report") == []
    [message] = warnings_of(caplog)
    assert f"`mlflow-ipfs report --run {run.info.run_id} --log-to-run" in message


def test_without_mlflow_the_training_ends_and_no_half_report_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "http://127.0.0.1:9"
    training = trainer(
        IPFSCallback(resource_seconds=None, report=tmp_path / "out"),
        logger=IPFSLogger(tracking_uri=uri, close_seconds=0.5),
    )
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        training.fit(build_model(), loader(), loader(2))
    assert training.state.finished
    assert not (tmp_path / "out").exists()
    [message] = warnings_of(caplog)
    assert "was not written, because MLflow does not have all of its metrics yet" in message
    assert f"`mlflow-ipfs report --run ID --log-to-run --tracking-uri {uri}`" in message


def test_without_a_reporter_the_training_ends_and_the_warning_says_what_to_install(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer_reporters(monkeypatch, {})
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        trainer(IPFSCallback(resource_seconds=None, report=True)).fit(build_model(), loader(), loader(2))
    assert only_run(client).info.status == "FINISHED"
    [message] = warnings_of(caplog)
    assert "pip install 'mlflow-ipfs[reports]'" in message
