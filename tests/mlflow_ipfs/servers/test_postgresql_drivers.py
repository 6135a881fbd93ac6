"""PostgreSQL with the one driver that is installed: every spelling of the URI works, and no output has the password."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from mlflow_ipfs.binding.databases.drivers import only_driver
from support.mlflow_server import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from support.postgres import PostgresServer

pytestmark = [pytest.mark.server, pytest.mark.postgres]


@pytest.mark.parametrize("prefix", ["ipfs+postgresql:", f"ipfs+postgresql+{only_driver()}:"])
def test_mlflow_db_upgrade(postgres: PostgresServer, tmp_path: Path, prefix: str) -> None:
    uri = postgres.uri(postgres.create_database()).replace("postgresql:", prefix)
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", uri],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert postgres.password not in done.stdout + done.stderr


def test_a_server_at_l1_and_at_l2(postgres: PostgresServer, mlflow_server: StartServer, tmp_path: Path) -> None:
    uri = postgres.uri(postgres.create_database())
    ours = uri.replace("postgresql:", f"ipfs+postgresql+{only_driver()}:")
    jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}  # at L2, MLflow logs the URI that its job runner refuses
    for backend, env in ((uri, {}), (ours, jobs)):
        server = mlflow_server(
            *("--backend-store-uri", backend),
            *("--registry-store-uri", ours),
            *("--artifacts-destination", "mfs://mlflow"),
            env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"} | env,
            workers=1,
        )
        client = MlflowClient(server.url)
        run = client.create_run("0")
        client.log_text(run.info.run_id, "artifact_path: model", "model/MLmodel")
        if not client.search_registered_models():
            client.create_registered_model("digits")
        version = client.create_model_version("digits", f"runs:/{run.info.run_id}/model", run.info.run_id)
        assert version.tags["ipfs.cid"]
        assert postgres.password not in server.read_log()
    assert "job execution requirements not met" in server.read_log()
    assert "***" in server.read_log()
