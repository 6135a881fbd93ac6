"""Databases that older MLflow versions wrote: they are migrated, keep their content, and get frozen versions."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from packaging.version import Version

from support.clients import run_client
from support.mlflow_server import clean_environment

pytestmark = pytest.mark.slow

VECTORS = sorted((Path(__file__).parents[3] / "vectors" / "mlflow").glob("*.sql.gz"))


def version_of(vector: Path) -> Version:
    """Return the version of MLflow that wrote a database: ``mlflow-3.5.1.sql.gz``."""
    return Version(vector.name.removeprefix("mlflow-").removesuffix(".sql.gz"))


USE = """
    import pathlib, mlflow
    client = mlflow.MlflowClient()
    [experiment] = client.search_experiments(filter_string="name = 'digits'")
    [run] = client.search_runs([experiment.experiment_id])
    [model] = client.search_logged_models([experiment.experiment_id])
    old = client.search_model_versions("name = 'digits'")
    pathlib.Path("model").mkdir()
    pathlib.Path("model/MLmodel").write_text("flavors: {}\\n")
    new = client.create_run(client.create_experiment("new")).info.run_id
    client.log_artifacts(new, "model", "model")
    version = client.create_model_version("digits", f"runs:/{new}/model", new)
    answer({
        "run": [run.data.params, run.data.metrics, run.data.tags["team"]],
        "model": model.name,
        "old": sorted([int(found.version), found.tags["n"]] for found in old),
        "champion": client.get_model_version_by_alias("digits", "champion").source,
        "uri": client.get_model_version_download_uri("digits", "1"),
        "new": [int(version.version), version.tags["ipfs.cid"], client.get_model_version_download_uri("digits", "3")],
    })
"""


@pytest.fixture(params=VECTORS, ids=lambda file: file.name.split(".sql")[0])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if version_of(request.param) > Version(mlflow.__version__):
        pytest.skip(f"MLflow {mlflow.__version__} opens no database of a newer one")
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(gzip.decompress(request.param.read_bytes()).decode())
    return file


@pytest.mark.parametrize("way", ["opened", "upgraded first"])
def test_a_database_of_an_older_mlflow(database: Path, tmp_path: Path, way: str) -> None:
    uri = f"ipfs+sqlite:///{database}"
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "MLFLOW_TRACKING_URI": uri}
    if way == "upgraded first":
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
        done = subprocess.run(
            command, env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    found = run_client(USE, directory=tmp_path, env=env)
    number, cid, location = found.pop("new")
    assert found == {
        "run": [{"lr": "0.1"}, {"loss": 0.5}, "vision"],
        "model": "model",
        "old": [[1, "1"], [2, "2"]],
        "champion": "s3://bucket/digits/2",
        "uri": "s3://bucket/digits/1",
    }
    assert number == 3
    assert location.endswith(f"/@{cid}")
