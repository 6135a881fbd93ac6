"""MLflow's own commands on this package's stores: `mlflow gc`, `mlflow db upgrade`, `mlflow artifacts download`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.entities.logged_model_status import LoggedModelStatus

from mlflow_ipfs.content.mfs import MfsPath
from support.command_line import CommandLine
from support.copied_databases import delete_versions, make_versions, open_client
from support.mlflow_server import clean_environment
from support.mlflow_sites import pin_owners

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow


def run_mlflow(*arguments: str, directory: Path) -> str:
    uri = f"ipfs+sqlite:///{directory}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *arguments],
        env=clean_environment(MLFLOW_IPFS_STORE=f"local:{directory}/store", MLFLOW_TRACKING_URI=uri),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def make_version(client: MlflowClient, directory: Path, name: str) -> tuple[str, str]:
    """Register a version of a logged model. Return the ids of its run and of the model."""
    (directory / "model").mkdir(exist_ok=True)
    (directory / "model/MLmodel").write_text("flavors: {}\n")
    (directory / "model/weights.bin").write_text(name)
    run = client.create_run("0")
    client.log_text(run.info.run_id, "loss", "notes.txt")
    model = client.create_logged_model("0", name=name, source_run_id=run.info.run_id)
    client.log_model_artifacts(model.model_id, str(directory / "model"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{model.model_id}", run.info.run_id)
    return run.info.run_id, model.model_id


def mutable_files(store: ContentStore) -> list[str]:
    return [entry.path.rpartition("/")[2] for entry in store.storage.entries.walk("mlflow", "")]


def test_mlflow_gc_leaves_frozen_versions(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    run_id, model_id = make_version(client, tmp_path, "kept")
    make_version(client, tmp_path, "also-kept")
    client.delete_run(run_id)
    client.delete_logged_model(model_id)
    output = run_mlflow("gc", "--backend-store-uri", f"ipfs+sqlite:///{database}", directory=tmp_path)
    assert f"Run with ID {run_id} has been permanently deleted" in output
    assert model_id in output
    assert sorted(mutable_files(store)) == ["MLmodel", "notes.txt", "weights.bin"]  # those of the other run
    store.collect_garbage()
    weights = Path(mlflow.artifacts.download_artifacts("models:/kept/1")) / "weights.bin"
    assert weights.read_text() == "kept"
    assert len(pin_owners(store)) == 2


def test_a_copied_database_takes_nothing_from_the_original(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    """The copy's versions and runs are deleted, and everything is collected that may be."""
    cids = make_versions(client)
    copy = shutil.copy(database, tmp_path / "copy.db")
    in_copy = open_client(Path(copy))
    delete_versions(in_copy)
    runs = [run.info.run_id for run in in_copy.search_runs(["0"])]
    for run_id in runs:
        in_copy.delete_run(run_id)
    gc = ("gc", "--backend-store-uri", f"ipfs+sqlite:///{copy}")
    with pytest.raises(AssertionError, match="databases fork"):  # before, it deleted the original's files
        run_mlflow(*gc, directory=tmp_path)
    CommandLine(tmp_path / "store")("gc", "--grace", "0")
    for number in range(1, len(cids) + 1):
        assert Path(mlflow.artifacts.download_artifacts(f"models:/m/{number}"), "MLmodel").exists()
    CommandLine(tmp_path / "store")("databases", "fork", "--backend-store-uri", f"sqlite:///{copy}")
    run_mlflow(*gc, directory=tmp_path)
    CommandLine(tmp_path / "store")("gc", "--grace", "0")
    for number, run in enumerate(client.search_runs(["0"]), start=1):
        assert Path(mlflow.artifacts.download_artifacts(f"models:/m/{number}"), "MLmodel").exists()
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["model"]
    assert len(mutable_files(store)) == len(cids)
    assert len(pin_owners(store, "model-version:")) == len(cids)


def test_mlflow_gc_gets_past_artifacts_that_are_gone(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    run_id, _ = make_version(client, tmp_path, "m")
    location = client.get_run(run_id).info.artifact_uri.removeprefix("mfs://mlflow/")
    store.files.delete(MfsPath("mlflow", location))
    odd = client.create_run(client.create_experiment("odd", artifact_location="ipfs://no-cid-at-all")).info.run_id
    for one in (run_id, odd):
        client.delete_run(one)
    output = run_mlflow("gc", "--backend-store-uri", f"ipfs+sqlite:///{database}", directory=tmp_path)
    for one in (run_id, odd):
        assert f"Run with ID {one} has been permanently deleted" in output


def test_mlflow_db_upgrade(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    make_version(client, tmp_path, "m")
    before = client.get_model_version("m", "1").tags
    identity = "SELECT registry_id FROM mlflow_ipfs_registry"
    with sqlite3.connect(database) as connection:
        (registry_id,) = connection.execute(identity).fetchone()
    run_mlflow("db", "upgrade", f"ipfs+sqlite:///{database}", directory=tmp_path)
    with sqlite3.connect(database) as connection:
        assert connection.execute(identity).fetchall() == [(registry_id,)]
    assert client.get_model_version("m", "1").tags == before


def test_what_the_mlflow_command_downloads_outlives_it(client: MlflowClient, tmp_path: Path) -> None:
    make_version(client, tmp_path, "m")
    cid = client.get_model_version("m", "1").tags["ipfs.cid"]
    output = run_mlflow("artifacts", "download", "--artifact-uri", f"ipfs://{cid}/weights.bin", directory=tmp_path)
    assert Path(output.strip().splitlines()[-1]).read_text() == "m"
    run_mlflow("artifacts", "download", "--artifact-uri", f"ipfs://{cid}", "--dst-path", "out", directory=tmp_path)
    assert sorted(os.listdir(tmp_path / "out")) == ["MLmodel", "weights.bin"]


def test_the_cli_and_stock_mlflow_read_the_same_database(client: MlflowClient, database: Path, tmp_path: Path) -> None:
    """MLflow's own store can open an ipfs+sqlite database too."""
    make_version(client, tmp_path, "m")
    stock = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}", registry_uri=f"sqlite:///{database}")
    assert stock.get_model_version("m", "1").tags == client.get_model_version("m", "1").tags
