"""Which runs a cell logged to: those of this process, whatever logs and on whatever thread, and no others."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from mlflow_ipfs.training import open_run_log
from reports.logged_runs import LoggedRuns, record_logged_runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def uri(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    del client
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    return mlflow.get_tracking_uri()


def ids(runs: LoggedRuns, uri: str) -> list[str]:
    assert set(runs.by_tracking_uri()) <= {uri}
    return runs.by_tracking_uri().get(uri, [])


def test_runs_that_were_created_or_logged_to_are_found_and_no_others(uri: str, client: MlflowClient) -> None:
    before, untouched, other = [client.create_run("0").info.run_id for _ in range(3)]
    with mlflow.start_run(run_id=before):
        with record_logged_runs() as runs:
            mlflow.log_metric("loss", 0.5)
            with mlflow.start_run(nested=True) as nested:
                pass
            client.log_batch(run_id=other, metrics=[Metric("loss", 1.0, 1, 0)])
            client.get_run(untouched)
        mlflow.set_tag("later", "1")
        client.log_metric(untouched, "loss", 1.0)
    assert ids(runs, uri) == [before, nested.info.run_id, other]


def test_what_another_library_puts_into_the_client_meanwhile_stays(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(MlflowClient, "log_metric", MlflowClient.log_metric)  # what is restored after the test
    with record_logged_runs() as runs:
        ours = MlflowClient.log_metric

        def theirs(client: MlflowClient, *args: object) -> object:
            calls.append("theirs")
            return ours(client, *args)  # type: ignore[arg-type]

        MlflowClient.log_metric = theirs  # type: ignore[assignment, method-assign]
        run_id = MlflowClient().create_run("0").info.run_id
        MlflowClient().log_metric(run_id, "loss", 1.0)
        assert (ids(runs, uri), calls) == ([run_id], ["theirs"])
    assert MlflowClient.log_metric is theirs


@pytest.mark.parametrize(
    "log",
    [
        lambda: mlflow.log_metrics({"a": 1.0}),
        lambda: mlflow.log_metric("a", 1.0, synchronous=False),
        lambda: mlflow.log_param("a", 1),
        lambda: mlflow.log_params({"a": 1}),
        lambda: mlflow.set_tag("a", "1"),
        lambda: mlflow.set_tags({"a": "1"}),
        lambda: mlflow.log_text("a", "a.txt"),
        lambda: mlflow.log_dict({"a": 1}, "a.json"),
        lambda: mlflow.log_artifact(__file__),
    ],
)
def test_all_of_mlflows_functions_are_seen(uri: str, client: MlflowClient, log: object) -> None:
    run_id = client.create_run("0").info.run_id
    with mlflow.start_run(run_id=run_id), record_logged_runs() as runs:
        assert callable(log)
        log()
        mlflow.flush_async_logging()
    assert ids(runs, uri) == [run_id]


def test_the_thread_of_a_run_log_is_seen(uri: str) -> None:
    with record_logged_runs() as runs:
        log = open_run_log()
        log.log_metrics({"loss": 1.0})
        report = log.close("FINISHED")
    assert report.spool is None
    assert ids(runs, uri) == [report.run_id]


def test_what_fails_is_not_noted_and_the_client_is_as_before(uri: str, client: MlflowClient) -> None:
    before = {name: inspect.getattr_static(MlflowClient, name) for name in dir(MlflowClient)}
    with pytest.raises(Exception, match="not found"), record_logged_runs() as runs:
        client.log_metric("0" * 32, "loss", 1.0)
    assert ids(runs, uri) == []
    assert {name: inspect.getattr_static(MlflowClient, name) for name in dir(MlflowClient)} == before


def test_two_blocks_on_two_threads_leave_the_client_as_before(uri: str) -> None:
    del uri
    original = inspect.getattr_static(MlflowClient, "log_metric")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with record_logged_runs():
            entered.set()
            leave.wait(60)

    with record_logged_runs():
        other = threading.Thread(target=hold)
        other.start()
        assert entered.wait(60)
    leave.set()
    other.join(60)
    assert inspect.getattr_static(MlflowClient, "log_metric") is original
