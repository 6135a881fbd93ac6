"""What a server logs for its operator: problems of the set-up at start; refusals, a full disk and damage afterwards."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.opening import open_store
from support.clients import ask

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.server


def errors_of(log: str) -> list[str]:
    return [line for line in log.splitlines() if re.search(r" ERROR mlflow_ipfs", line)]


def test_a_server_that_cannot_freeze_says_so_once_and_leaves_no_empty_model(
    mlflow_server: StartServer, tmp_path: Path
) -> None:
    server = mlflow_server(
        *("--backend-store-uri", "sqlite:///mlflow.db"),
        *("--registry-store-uri", "ipfs+sqlite:///mlflow.db"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
    )
    [line] = errors_of(server.read_log())
    assert "model versions cannot be registered" in line
    assert "--artifacts-destination is ./mlartifacts" in line
    client = MlflowClient(server.url)
    with pytest.raises(MlflowException, match="the model cannot be frozen"):
        client.create_registered_model("digits")
    assert client.search_registered_models() == []
    assert client.register_prompt("greeting", "Hello {{name}}").version == 1  # prompts have no files


def test_at_l0_a_store_that_cannot_be_written_is_told_at_start(mlflow_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = mlflow_server(
        *("--backend-store-uri", "sqlite:///mlflow.db"),
        *("--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/file/store"},
    )
    [line] = errors_of(server.read_log())
    assert f"artifacts cannot be stored in {tmp_path}/file/store" in line


def test_refusals_and_damage_are_logged_with_path_or_cid(mlflow_server: StartServer, tmp_path: Path) -> None:
    server = mlflow_server(
        *("--backend-store-uri", "sqlite:///mlflow.db"),
        *("--registry-store-uri", "ipfs+sqlite:///mlflow.db"),
        *("--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "MLFLOW_IPFS_VERIFY": "always"},
    )
    assert errors_of(server.read_log()) == []
    artifacts = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    assert ask(f"{artifacts}/1/weights.bin", method="PUT", body=b"x" * (3 << 20)).status == 200
    assert ask(f"{artifacts}/1/missing.bin").status == 404
    client = MlflowClient(server.url)
    client.create_registered_model("digits")
    with pytest.raises(MlflowException, match="does not import"):
        client.create_model_version("digits", "s3://key:geheim@bucket/model")
    with open_store(Settings(store=tmp_path / "store")) as store:
        entry = store.files.stat(MfsPath("mlflow", "1/weights.bin"))
        assert isinstance(entry, MfsEntry)
        file = store.local_path(entry.cid)
    assert file is not None
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.write(b"y")
    assert ask(f"{artifacts}/1/weights.bin").status == 409
    refused, damaged = errors_of(server.read_log())
    assert "s3://key:***@bucket/model" in refused
    assert refused.endswith("(HTTP 403)")
    assert "mfs://mlflow/1/weights.bin" in damaged
    assert str(entry.cid) in damaged
    assert damaged.endswith("(HTTP 409)")
    assert "geheim" not in server.read_log()


def test_an_operator_can_list_what_may_be_imported(mlflow_server: StartServer, database: Path, tmp_path: Path) -> None:
    """A server whose artifacts are not in IPFS reports the setting to change."""
    for name in ("models", "models-secret"):
        (tmp_path / name / "net").mkdir(parents=True)
        (tmp_path / name / "net/MLmodel").write_text("flavors: {}\n")
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", str(tmp_path / "plain")),
        env={
            "MLFLOW_IPFS_STORE": f"local:{tmp_path}/store",
            "MLFLOW_IPFS_IMPORT_ALLOW": f"{tmp_path}/models",
        },
    )
    client = MlflowClient(server.url)
    with pytest.raises(MlflowException, match="--artifacts-destination mfs://"):
        client.create_registered_model("m")  # it would stay empty
    MlflowClient(f"sqlite:///{database}").create_registered_model("m")  # as if it had been made by another server
    run = client.create_run("0")
    client.log_text(run.info.run_id, "x", "model/MLmodel")
    with pytest.raises(MlflowException, match="--artifacts-destination mfs://"):
        client.create_model_version("m", f"{run.info.artifact_uri}/model", run.info.run_id)
    with sqlite3.connect(database) as connection:  # as if the run had been made before the server proxied
        connection.execute("UPDATE runs SET artifact_uri = ?", (str(tmp_path),))
    with pytest.raises(MlflowException, match="MLFLOW_IPFS_IMPORT_ALLOW"):
        client.create_model_version("m", f"{tmp_path}/models-secret/net", run.info.run_id)
    with pytest.raises(MlflowException, match="--artifacts-destination mfs://"):
        client.create_model_version("m", f"{tmp_path}/models/net", run.info.run_id)  # listed, but has no place to go
    assert client.search_model_versions("name = 'm'") == []
