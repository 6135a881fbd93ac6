from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_ipfs.binding import mlflow_process
from mlflow_ipfs.plugins.model_registry_store import build_model_registry_store
from mlflow_ipfs.plugins.tracking_store import build_tracking_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore


@pytest.fixture(autouse=True)
def _own_store(store: ContentStore) -> None:
    del store


def test_the_default_root_is_below_the_registry_id(database: Path) -> None:
    tracking = build_tracking_store(f"ipfs+sqlite:///{database}")
    registry = build_model_registry_store(f"ipfs+sqlite:///{database}")
    assert isinstance(tracking, SqlAlchemyStore)  # MLflow asks for it by class
    assert tracking.registry_id == registry.registry_id
    assert tracking.get_experiment("0").artifact_location == f"mfs://mlflow/{tracking.registry_id}/0"
    again = build_tracking_store(f"ipfs+sqlite:///{database}")
    assert again.registry_id == tracking.registry_id


def test_two_databases_share_no_path(empty_database: Path, tmp_path: Path) -> None:
    roots = set()
    for name in ("a.db", "b.db"):
        (tmp_path / name).write_bytes(empty_database.read_bytes())
        roots.add(build_tracking_store(f"ipfs+sqlite:///{tmp_path}/{name}").artifact_root_uri)
    assert len(roots) == 2


def test_a_root_that_the_user_named_is_taken_as_it_is(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_tracking_store(f"ipfs+sqlite:///{database}", "mfs://team").artifact_root_uri == "mfs://team"
    monkeypatch.setenv(mlflow_process.SERVER_ARTIFACT_ROOT, "mlflow-artifacts:/")
    assert build_tracking_store(f"ipfs+sqlite:///{database}").artifact_root_uri == "mlflow-artifacts:/"


def test_mlflows_fallback_is_not_taken_for_the_users_word(database: Path) -> None:
    root = build_tracking_store(f"ipfs+sqlite:///{database}", "./mlruns").artifact_root_uri
    assert root.startswith("mfs://mlflow/")


def test_the_root_is_a_setting(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_ROOT", "mfs://team/a")
    assert build_tracking_store(f"ipfs+sqlite:///{database}").artifact_root_uri.startswith("mfs://team/a/")


def test_workspaces_are_refused(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    for build in (build_tracking_store, build_model_registry_store):
        with pytest.raises(MlflowException, match="workspaces"):
            build(f"ipfs+sqlite:///{database}")


def test_a_setting_that_cannot_be_used_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_ROOT", "s3://bucket")
    with pytest.raises(MlflowException, match="MLFLOW_IPFS_ROOT"):
        build_tracking_store(f"ipfs+sqlite:///{database}")


def test_clients_of_a_server_do_not_choose_places_in_its_store(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = build_tracking_store(f"ipfs+sqlite:///{database}")
    assert tracking.create_experiment("direct", "mfs://team/e")
    monkeypatch.setenv(mlflow_process.SERVER_BACKEND_STORE, f"ipfs+sqlite:///{database}")
    with pytest.raises(MlflowException, match="leave the location out") as caught:
        tracking.create_experiment("through a server", "mfs://mlflow/2")
    assert caught.value.error_code == "PERMISSION_DENIED"
    assert tracking.create_experiment("elsewhere", "s3://bucket/e")


def _open_both(uri: str, ready: multiprocessing.synchronize.Barrier, answers: multiprocessing.Queue[str]) -> None:
    ready.wait(60)
    try:
        ids = {build_tracking_store(uri).registry_id, build_model_registry_store(uri).registry_id}
        answers.put(",".join(ids))
    except Exception as error:  # noqa: BLE001 - shown by the test
        answers.put(f"{type(error).__name__}: {error}")


@pytest.mark.slow
def test_processes_that_start_at_the_same_time_agree(tmp_path: Path) -> None:
    """On a database that does not exist yet: tables, registry id and experiment 0 are made once."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(2), context.Queue()
    uri = f"ipfs+sqlite:///{tmp_path}/new.db"
    processes = [context.Process(target=_open_both, args=(uri, ready, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=90) for _ in processes}
    for process in processes:
        process.join(30)
    assert len(found) == 1
    assert len(found.pop()) == 16


def test_everyday_logging_without_a_server(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "directory/sub").mkdir(parents=True)
    (tmp_path / "directory/sub/x.txt").write_text("x")
    with mlflow.start_run() as run:
        mlflow.log_params({"a": 1})
        mlflow.log_metric("loss", 0.5)
        mlflow.log_artifacts(str(tmp_path / "directory"), "data")
        mlflow.log_dict({"k": [1]}, "d.json")
        mlflow.log_table({"a": [1, 2]}, "table.json")
        mlflow.log_text("again", "data/sub/x.txt")
    run_id = run.info.run_id
    assert run.info.artifact_uri.startswith("mfs://mlflow/")
    assert {item.path for item in client.list_artifacts(run_id)} == {"d.json", "data", "table.json"}
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/data/sub/x.txt") == "again"
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/d.json") == {"k": [1]}
    directory = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="data")
    assert os.listdir(Path(directory) / "sub") == ["x.txt"]
    assert mlflow.load_table("table.json", run_ids=[run_id]).shape[0] == 2


def test_images_are_logged_in_the_background(client: MlflowClient) -> None:
    import numpy as np

    with mlflow.start_run() as run:
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "image.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="step", step=1)
        mlflow.flush_artifact_async_logging()
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"image.png", "images"}
    assert mlflow.artifacts.load_image(f"{run.info.artifact_uri}/image.png").size == (4, 4)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # MLflow's own, at its first trace
def test_traces(client: MlflowClient) -> None:
    @mlflow.trace
    def work(x: int) -> int:
        return x + 1

    assert work(1) == 2
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(locations=["0"], return_type="list")
    assert [span.name for span in trace.data.spans] == ["work"]
    assert trace.info.tags["mlflow.artifactLocation"].startswith("mfs://mlflow/")
    del client


def test_a_missing_artifact_fails_at_once(client: MlflowClient, caplog: pytest.LogCaptureFixture) -> None:
    run = client.create_run("0")
    with caplog.at_level(logging.ERROR), pytest.raises(MlflowException) as caught:
        mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/no/such")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
