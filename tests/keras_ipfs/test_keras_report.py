"""``IPFSCallback(report=…)``: the report of the run is in the run when a call has ended, and no failure stops a training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from keras_ipfs import InferenceMetrics, IPFSCallback, RunReport
from support.keras_models import KERAS_MARKS, Fails, X, Y, fit
from support.reporters import declared_reporters, offer_reporters, only_run, page_of, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

pytestmark = [
    *KERAS_MARKS,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),  # MLflow's own, at the import of mlflow.pyfunc
]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    offer_reporters(monkeypatch, declared_reporters())


def test_the_report_is_in_the_run_after_each_call(
    client: MlflowClient, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = IPFSCallback(resource_seconds=0.2, report=tmp_path / "out")
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        fit(model, callback)
        page = page_of(only_run(client))
        assert page == (tmp_path / "out" / "report.html").read_text()
        assert "val_accuracy" in page
        assert "test_accuracy" not in page
        model.evaluate(X, Y, verbose=0, callbacks=[callback])
        assert "test_accuracy" in page_of(only_run(client))
        model.predict(X, batch_size=4, verbose=0, callbacks=[InferenceMetrics(), RunReport()])
    page = page_of(only_run(client))
    assert "val_accuracy" in page
    assert "inference/predict" in page
    assert warnings_of(caplog) == []


def test_beside_autolog_the_report_has_the_last_epoch(client: MlflowClient, model: Any) -> None:
    mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with mlflow.start_run():
            fit(model, IPFSCallback(resource_seconds=None, report=True), epochs=3)
    finally:
        mlflow.keras.autolog(disable=True)
    history = client.get_metric_history(only_run(client).info.run_id, "val_accuracy")
    assert [point.step for point in history] == [0, 1, 2]
    page = page_of(only_run(client))
    assert "val_accuracy" in page
    assert "running; started" in page, "the run is the user's own"


def test_a_report_that_the_run_cannot_keep_does_not_stop_the_training(
    client: MlflowClient, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    experiment = client.create_experiment("no artifacts", artifact_location=f"file:{tmp_path}/file/artifacts")
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"), mlflow.start_run(experiment_id=experiment) as run:
        fit(model, IPFSCallback(resource_seconds=None, report=True), epochs=1)
    assert client.get_run(run.info.run_id).data.metrics["loss"] > 0
    [message] = warnings_of(caplog)
    assert f"the report of the run {run.info.run_id} was not written" in message
    assert f"`mlflow-ipfs report --run {run.info.run_id} --log-to-run --tracking-uri ipfs+sqlite:///" in message


def test_without_mlflow_the_training_ends_and_no_half_report_is_written(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
            fit(model, IPFSCallback(resource_seconds=None, report=tmp_path / "out"), epochs=1)
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    [message] = warnings_of(caplog)
    assert "was not written, because MLflow does not have all of its metrics yet" in message


def test_without_a_reporter_the_training_ends_and_the_warning_says_what_to_install(
    client: MlflowClient, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer_reporters(monkeypatch, {})
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        fit(model, IPFSCallback(resource_seconds=None, report=True), epochs=1)
    assert only_run(client).info.status == "FINISHED"
    [message] = warnings_of(caplog)
    assert "pip install 'mlflow-ipfs[reports]'" in message


def test_after_an_exception_the_next_fit_does_not_wait_for_the_report_of_the_failed_one(
    client: MlflowClient, model: Any
) -> None:
    with pytest.raises(RuntimeError, match="fails"):
        fit(model, IPFSCallback(resource_seconds=None, report=True), Fails())
    fit(model, IPFSCallback(resource_seconds=None), epochs=1)
    assert client.list_artifacts(only_run(client).info.run_id, "report") == []
