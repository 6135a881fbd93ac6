"""``open_run_log`` with a real database: in which experiment a new run is created, and by which process."""

from __future__ import annotations

import json
import logging
import random
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.training.runlog.mlflow_target import MlflowTarget
from mlflow_ipfs.training.runlog.opening import open_run_log, sync_run_logs
from mlflow_ipfs.training.runlog.records import Point, Record, metric_records
from mlflow_ipfs.training.runlog.run_log import describe_run
from mlflow_ipfs.training.runlog.spool import Spool
from mlflow_ipfs.training.runlog.target import UnreachableError
from support.mlflow_server import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


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


def test_a_new_run_has_the_tags_that_mlflow_gives_one(client: mlflow.MlflowClient) -> None:
    report = open_run_log(tags={"team": "a"}).close("FINISHED")
    assert report.run_id is not None
    with mlflow.start_run() as run:
        pass
    expected, found = run.data.tags, client.get_run(report.run_id).data.tags
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= set(expected)
    assert {key: found.get(key) for key in expected if key != "mlflow.runName"} == {
        key: value for key, value in expected.items() if key != "mlflow.runName"
    }
    assert found["team"] == "a"


def test_a_new_run_takes_nothing_from_the_random_numbers_of_a_seeded_training(client: mlflow.MlflowClient) -> None:
    names = set()
    for _ in range(3):
        random.seed(1)
        before = random.getstate()
        report = open_run_log().close("FINISHED")
        assert random.getstate() == before
        assert report.run_id is not None
        names.add(client.get_run(report.run_id).info.run_name)
    assert len(names) > 1, "runs of a seeded program can be told apart"


@pytest.mark.parametrize("options", [{"run_name": "named"}, {"tags": {"mlflow.runName": "named"}}])
def test_the_name_of_a_new_run(client: mlflow.MlflowClient, options: dict[str, Any]) -> None:
    report = open_run_log(**options).close("FINISHED")
    assert report.run_id is not None
    assert client.get_run(report.run_id).info.run_name == "named"


def test_an_mlflow_that_cannot_be_reached_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UnreachableError) as caught:
            MlflowTarget(f"http://ada:secret@{address}").find_or_create(describe_run("http://"))
    assert str(caught.value) == (
        f"http://ada:***@{address} cannot be reached (Connection refused); check that MLflow's server is running, and its address"
    )


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


def close_seconds(tracking_uri: str) -> float:
    """Return how long the end of a run log takes that may wait for five seconds."""
    log = open_run_log(tracking_uri=tracking_uri, close_seconds=5)
    log.log_metrics({"loss": 1.0})
    started = time.monotonic()
    assert (log.close("FINISHED").spool is None) == tracking_uri.startswith("sqlite")
    return time.monotonic() - started


@pytest.mark.parametrize("listens", [False, True])
def test_only_the_first_run_log_waits_for_an_mlflow_that_is_away(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, *, listens: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # else the threads go on after the test
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen(8)  # the kernel accepts connections, and no program answers
        away = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert close_seconds(away) > 4.9
        assert close_seconds(away) < 4.5, "one more try"
        close_seconds(str(client.tracking_uri))


def spool_one_point(directory: Path, tracking_uri: str, **run: Any) -> str:
    """Leave a run log with one point, and return its id."""
    spool = Spool.create(directory, replace(describe_run(tracking_uri), **run), 1 << 20)
    [record] = metric_records([Point("loss", 1.0, 1, 0)])
    spool.append(record)
    spool.append(Record(finish=("FINISHED", 2)))
    spool.close()
    return spool.run.id


def test_without_a_tracking_uri_each_run_log_is_sent_to_its_own(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    uris = [str(client.tracking_uri), f"sqlite:///{tmp_path / 'other.db'}"]
    for uri in uris:
        spool_one_point(tmp_path / "runlog", uri)
    assert [status.problem for status in sync_run_logs(tmp_path / "runlog", None)] == [None, None]
    for uri in uris:
        [run] = mlflow.MlflowClient(uri).search_runs(["0"])
        assert run.data.metrics == {"loss": 1.0}


def test_a_run_log_for_a_mistyped_uri_is_sent_where_the_user_says(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    directory, uri = tmp_path / "runlog", str(client.tracking_uri)
    mistyped = spool_one_point(directory, "sqlit:///mlflow.db")
    created = spool_one_point(directory, "sqlit:///mlflow.db", run_id="a" * 32)
    problems = {status.directory.name: status.problem for status in sync_run_logs(directory, uri)}
    assert f"`mlflow-ipfs runlog sync {mistyped} --tracking-uri URI`" in str(problems[mistyped])
    assert problems[created] == "it belongs to sqlit:///mlflow.db; name that with --tracking-uri"
    [status] = sync_run_logs(directory, uri, [mistyped])
    assert status.problem is not None, "the variable MLFLOW_TRACKING_URI may be set for another program"
    found = sync_run_logs(directory, uri, [mistyped, created], may_move=True)
    problems = {status.directory.name: status.problem for status in found}
    assert problems[mistyped] is None
    assert problems[created] is not None
    assert [run.data.metrics for run in client.search_runs(["0"])] == [{"loss": 1.0}]


def test_sync_prints_nothing_but_json(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    spool_one_point(tmp_path / "runlog", str(client.tracking_uri))
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_ipfs", "runlog", "sync", "--json"],
        env=clean_environment(
            MLFLOW_TRACKING_URI=str(client.tracking_uri), MLFLOW_IPFS_RUNLOG=str(tmp_path / "runlog")
        ),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert [json.loads(line)["points"] for line in done.stdout.splitlines()] == [0]
    assert [run.data.metrics for run in client.search_runs(["0"])] == [{"loss": 1.0}]
