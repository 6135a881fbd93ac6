"""L2: this package's tracking store and registry store, in a real server with two workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from support.clients import run_client
from support.mlflow_sites import storage_location

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.server

CODE = """
    import mlflow, sklearn.linear_model, time
    mlflow.set_experiment("e")
    x = [[0.0], [1.0], [2.0]]
    with mlflow.start_run() as run:
        fitted = sklearn.linear_model.LinearRegression().fit(x, [1.0, 3.0, 5.0])
        mlflow.log_metric("loss", 0.5)
        info = mlflow.sklearn.log_model(fitted, name="line", registered_model_name="line", pip_requirements=["mlflow"])
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("line", "champion", "1")
    copy = client.copy_model_version("models:/line@champion", "production")
    sklearn_other = fitted.fit(x, [0.0, 0.0, 0.0])
    mlflow.sklearn.save_model(sklearn_other, "other", pip_requirements=["mlflow"])
    client.log_model_artifacts(info.model_id, "other")
    values = [float(mlflow.pyfunc.load_model(uri).predict([[3.0]])[0])
              for uri in ("models:/line@champion", "models:/production/1", info.model_uri)]

    @mlflow.trace
    def work(x): return x + 1
    work(1)
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(locations=[run.info.experiment_id], return_type="list")
    answer([values, run.info.artifact_uri, [span.name for trace in traces for span in trace.data.spans]])
"""


@pytest.mark.parametrize("proxied", [True, False])
def test_clients_of_a_server_on_our_stores(
    mlflow_server: StartServer, database: Path, tmp_path: Path, *, proxied: bool
) -> None:
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    arguments = ["--artifacts-destination", "mfs://mlflow"] if proxied else ["--no-serve-artifacts"]
    server = mlflow_server("--backend-store-uri", f"ipfs+sqlite:///{database}", *arguments, env=env)
    values, uri, spans = run_client(CODE, directory=tmp_path, env=env | {"MLFLOW_TRACKING_URI": server.url})
    assert values == pytest.approx([7, 7, 0])
    assert spans == ["work"]
    scheme = "mlflow-artifacts:/1/" if proxied else "mfs://mlflow/"
    assert uri.startswith(scheme)
    location = storage_location(database, "line", 1)
    assert location.startswith(scheme)
    assert "/artifacts/@bafy" in location
    assert storage_location(database, "production", 1) == location


def test_a_server_and_clients_without_one_share_a_database(
    mlflow_server: StartServer, database: Path, tmp_path: Path
) -> None:
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    direct = env | {"MLFLOW_TRACKING_URI": f"ipfs+sqlite:///{database}"}
    values, uri, _ = run_client(CODE, directory=tmp_path, env=direct)
    assert values == pytest.approx([7, 7, 0])
    server = mlflow_server(
        *("--backend-store-uri", f"ipfs+sqlite:///{database}", "--artifacts-destination", "mfs://mlflow"), env=env
    )
    client = MlflowClient(server.url)
    (run,) = client.search_runs(["1"])
    assert run.info.artifact_uri == uri
    version = client.get_model_version("line", "1")
    client.delete_model_version("line", version.version)
    client.delete_registered_model("production")
    listing = "import mlflow_ipfs; answer([pin.owner for pin in mlflow_ipfs.open_store().pins.list()])"
    assert run_client(listing, directory=tmp_path, env=env) == []


def test_workspaces_are_refused_with_a_reason(mlflow_server: StartServer, database: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="workspaces"):
        mlflow_server(
            *("--backend-store-uri", f"ipfs+sqlite:///{database}", "--enable-workspaces"),
            env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
        )
    assert time.monotonic() - started < 60
