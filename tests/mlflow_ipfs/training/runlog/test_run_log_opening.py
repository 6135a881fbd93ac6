"""``open_run_log`` with a real database: in which experiment a new run is created, and by which process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import mlflow
import pytest

from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def experiment_of_new_run(client: mlflow.MlflowClient, **options: str) -> str:
    report = open_run_log(**options).close("FINISHED")  # type: ignore[arg-type]
    assert report.run_id is not None
    return str(client.get_experiment(client.get_run(report.run_id).info.experiment_id).name)


def test_the_experiment_of_a_new_run(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiment_of_new_run(client) == "Default"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    assert experiment_of_new_run(client) == "of the environment"
    mlflow.set_experiment("of the script")
    assert experiment_of_new_run(client) == "of the script", "as for mlflow.start_run"
    assert experiment_of_new_run(client, experiment="named") == "named"
    uri = str(client.tracking_uri)
    assert experiment_of_new_run(client, tracking_uri=uri) == "of the environment", "ids belong to one MLflow"


def test_a_process_that_waits_for_the_run_of_another_one_finds_it_and_does_not_warn(
    client: mlflow.MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        waiting = open_run_log(run_key="of the job", creates_run=False)
        waiting.log_metrics({"system/node-1/cpu": 1.0})
        assert not waiting.flush(1.5)
        created = open_run_log(run_key="of the job").close("FINISHED")
        report = waiting.close()
    assert report.spool is None
    assert report.run_id == created.run_id
    assert [run.data.metrics for run in client.search_runs(["0"])] == [{"system/node-1/cpu": 1.0}]
    assert caplog.text == ""
