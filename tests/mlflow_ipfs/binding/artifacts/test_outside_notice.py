"""The one line about artifacts outside the store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient

from mlflow_ipfs.binding.artifacts import outside_notice
from mlflow_ipfs.binding.artifacts.outside_artifacts import SearchLimit, iterate_outside_artifacts
from mlflow_ipfs.binding.artifacts.outside_notice import describe_outside
from support.command_line import CommandLine
from support.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from mlflow_ipfs.content.store import ContentStore

RUNS = 3


@pytest.fixture
def stock(database: Path, tmp_path: Path) -> MlflowClient:
    """MLflow's own stores with runs whose artifacts are plain files."""
    client = MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")
    experiment = client.create_experiment("old", f"{tmp_path}/mlruns/1")
    for _ in range(RUNS):
        client.log_text(client.create_run(experiment).info.run_id, "hello", "a.txt")
    return client


def line_of(database: str, store: ContentStore, limit: SearchLimit) -> str | None:
    url = sqlalchemy.make_url(database)
    return describe_outside(iterate_outside_artifacts(url, store, environ={}, limit=limit), url, limit)


def test_the_line_has_the_number_and_the_command(stock: MlflowClient, store: ContentStore, database: Path) -> None:
    line = line_of(f"sqlite:///{database}", store, SearchLimit())
    assert line == (
        f"the artifacts of {RUNS} runs are outside the store; to see how to take them in: "
        f"mlflow-ipfs adopt --backend-store-uri sqlite:///{database} --dry-run"
    )
    del stock


def test_nothing_outside_gives_no_line(client: MlflowClient, store: ContentStore, database: Path) -> None:
    client.log_text(client.create_run("0").info.run_id, "hello", "a.txt")
    assert line_of(f"sqlite:///{database}", store, SearchLimit()) is None


@pytest.mark.parametrize("limit", [SearchLimit(max_rows=2), SearchLimit(max_rows=RUNS - 1)])
def test_a_search_that_was_cut_says_so(
    stock: MlflowClient, store: ContentStore, database: Path, limit: SearchLimit
) -> None:
    line = line_of(f"sqlite:///{database}", store, limit)
    assert line is not None
    assert line.startswith("the artifacts of at least 2 runs are outside")
    del stock


def test_a_search_ends_when_its_time_is_over(stock: MlflowClient, store: ContentStore, database: Path) -> None:
    limit = SearchLimit(max_seconds=-1.0)
    assert line_of(f"sqlite:///{database}", store, limit) is None
    assert limit.reached
    del stock


def test_the_password_is_not_shown() -> None:
    command = outside_notice.adopt_command(sqlalchemy.make_url("postgresql://me:secret@host/db"))
    assert "secret" not in command
    assert "me:***@host/db" in command


def test_doctor_says_it_in_one_line(stock: MlflowClient, database: Path, tmp_path: Path) -> None:
    del stock
    found = CommandLine(tmp_path / "store")("doctor", "--backend-store-uri", f"sqlite:///{database}")
    [line] = [line for line in found.lines if "outside the store" in line]
    assert line.split()[:5] == ["artifacts", "the", "artifacts", "of", "3"]
    assert f"mlflow-ipfs adopt --backend-store-uri sqlite:///{database} --dry-run" in line


def test_training_outside_the_store_warns_once(
    stock: MlflowClient,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del stock
    monkeypatch.setattr(outside_notice, "_warned_of_experiment", False)
    caplog.set_level(logging.WARNING, "mlflow_ipfs")
    with mlflow.start_run(experiment_id=client.create_experiment("new")):
        pass
    assert caplog.records == []
    mlflow.set_experiment("old")
    for _ in range(2):
        with mlflow.start_run():
            pass
    [record] = caplog.records
    assert f"go to {tmp_path}/mlruns/1, not into the store" in record.getMessage()
    assert "mlflow-ipfs adopt" in record.getMessage()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_server_says_it_once_at_its_start(
    mlflow_server: StartServer, stock: MlflowClient, database: Path, tmp_path: Path, level: str
) -> None:
    del stock
    uris = ["--backend-store-uri", f"ipfs+sqlite:///{database}"]
    if level == "L1":
        uris = ["--backend-store-uri", f"sqlite:///{database}", "--registry-store-uri", uris[1]]
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    server = mlflow_server(*uris, "--artifacts-destination", "mfs://mlflow", env=env)
    wait_until(lambda: "outside the store" in server.read_log(), timeout_seconds=30, what="the notice")
    MlflowClient(server.url).search_registered_models()  # a worker opens its own store
    lines = [line for line in server.read_log().splitlines() if "outside the store" in line]
    assert len(lines) == 1
    assert f"the artifacts of {RUNS} runs are outside" in lines[0]
