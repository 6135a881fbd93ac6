"""Ejection: stock servers and stock clients, without this package, serve what the store had, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient

from support.clients import run_client
from support.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.server

TRAIN = """
    import os
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # MLflow's thread may wait a minute at the end
    import mlflow, sklearn.linear_model
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("e")
    client = mlflow.MlflowClient()
    x = [[0.0], [1.0], [2.0]]

    @mlflow.trace
    def work(x): return x + 1

    with mlflow.start_run():
        fitted = sklearn.linear_model.LinearRegression().fit(x, [1.0, 3.0, 5.0])
        info = mlflow.sklearn.log_model(fitted, name="line", registered_model_name="line", pip_requirements=["mlflow"])
        mlflow.log_text("hello", "a/b.txt")
        work(1)
    client.set_registered_model_alias("line", "champion", info.registered_model_version)
    mlflow.sklearn.save_model(fitted.fit(x, [0.0, 0.0, 0.0]), sys.argv[2], pip_requirements=["mlflow"])
    client.log_model_artifacts(info.model_id, sys.argv[2])  # the version keeps what it was
    client.create_model_version("line", f"models:/{info.model_id}", model_id=info.model_id)
"""

READ = """
    import hashlib, importlib.util, pathlib, tempfile, mlflow
    mlflow.set_tracking_uri(sys.argv[1])
    client = mlflow.MlflowClient()
    found = {}
    def add(name, uri):
        directory = pathlib.Path(mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp()))
        for path in sorted(directory.rglob("*")):
            if path.is_file() and path.name != "registered_model_meta":
                found[f"{name} {path.relative_to(directory)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    experiment = client.get_experiment_by_name("e").experiment_id
    for run in client.search_runs([experiment]):
        add(f"run {run.info.run_id}", run.info.artifact_uri)
    for model in client.search_logged_models([experiment]):
        add(f"model {model.model_id}", f"models:/{model.model_id}")
    for version in client.search_model_versions("name = 'line'"):
        add(f"version {version.version}", f"models:/line/{version.version}")
    for trace in mlflow.search_traces(locations=[experiment], return_type="list"):
        found[f"trace {trace.info.trace_id}"] = [[span.name, span.outputs] for span in trace.data.spans]
    found["prediction"] = round(float(mlflow.pyfunc.load_model("models:/line@champion").predict([[3.0]])[0]), 6)
    answer([found, importlib.util.find_spec("mlflow_ipfs") is not None])
"""


def eject(tmp_path: Path, database: Path, *options: str) -> Path:
    directory = tmp_path / "plain"
    CommandLine(tmp_path / "store")(
        "eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", directory, *options
    )
    (tmp_path / "store").rename(tmp_path / "store-that-is-gone")
    return directory


def check_found(found: dict[str, Any]) -> None:
    assert {name.split()[0] for name in found} == {"run", "model", "version", "trace", "prediction"}
    assert {name.split()[1] for name in found if name.startswith("version")} == {"1", "2"}
    assert found["prediction"] == 7


@pytest.mark.parametrize("options", [(), ("--for-server",)])
def test_data_of_clients_without_a_server(
    mlflow_server: StartServer, stock_python: Path, database: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    direct = f"ipfs+sqlite:///{database}"
    run_client(TRAIN, direct, "other", directory=tmp_path, env=env)
    before, has_package = run_client(READ, direct, directory=tmp_path, env=env)
    assert has_package
    check_found(before)
    directory = eject(tmp_path, database, *options)
    destination = ("--artifacts-destination", directory) if options else ()
    server = mlflow_server("--backend-store-uri", f"sqlite:///{database}", *destination, python=stock_python)
    after, has_package = run_client(READ, server.url, directory=tmp_path, python=stock_python)
    assert not has_package
    assert after == before


def test_data_of_a_server(mlflow_server: StartServer, stock_python: Path, database: Path, tmp_path: Path) -> None:
    l1 = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
    )
    run_client(TRAIN, l1.url, "other", directory=tmp_path, python=stock_python)
    before, _ = run_client(READ, l1.url, directory=tmp_path, python=stock_python)
    check_found(before)
    directory = eject(tmp_path, database)
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", directory), python=stock_python
    )
    after, _ = run_client(READ, server.url, directory=tmp_path, python=stock_python)
    assert after == before


def test_a_server_serves_data_of_clients_without_a_server(
    mlflow_server: StartServer, stock_python: Path, database: Path, tmp_path: Path
) -> None:
    """After `databases convert --to server`, stock clients use the data, and after `--to direct` clients without a server."""
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    direct = f"ipfs+sqlite:///{database}"
    run_client(TRAIN, direct, "other", directory=tmp_path, env=env)
    cli = CommandLine(tmp_path / "store")
    done = cli("databases", "convert", "--to", "server", "--backend-store-uri", f"sqlite:///{database}")
    line = done.stderr.partition("`mlflow server ")[2].partition("`")[0]
    server = mlflow_server(*line.split(), env=env)
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:/")
    run_id = client.create_run("1").info.run_id
    client.log_text(run_id, "through the server", "a.txt")
    served, has_package = run_client(READ, server.url, directory=tmp_path, python=stock_python)
    assert not has_package
    check_found(served)
    assert f"run {run_id} a.txt" in served
    cli("databases", "convert", "--to", "direct", "--backend-store-uri", f"sqlite:///{database}")
    assert run_client(READ, direct, directory=tmp_path, env=env)[0] == served
