"""L0: MLflow's own stores, with artifacts in IPFS; and an experiment whose location is ``mfs://…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.files.chunker import parse_chunker
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.opening import open_store
from support.chunkers import DATA
from support.clients import ask, run_client

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.server

CODE = """
    import mlflow, sklearn.linear_model
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", *sys.argv[2:]))
    x = [[0.0], [1.0], [2.0]]
    with mlflow.start_run() as run:
        fitted = sklearn.linear_model.LinearRegression().fit(x, [1.0, 3.0, 5.0])
        info = mlflow.sklearn.log_model(fitted, name="line", registered_model_name="line", pip_requirements=["mlflow"], input_example=x)
        mlflow.log_text("hello", "notes/hello.txt")
    loaded = [mlflow.pyfunc.load_model(uri) for uri in (info.model_uri, "models:/line/1", f"runs:/{run.info.run_id}/line")]
    answer({
        "predictions": [float(model.predict([[3.0]])[0]) for model in loaded],
        "text": mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes/hello.txt"),
        "uri": run.info.artifact_uri,
    })
"""


def test_stock_stores_and_clients_with_artifacts_in_ipfs(
    mlflow_server: StartServer, database: Path, stock_python: Path, tmp_path: Path
) -> None:
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
    )
    answer = run_client(CODE, server.url, directory=tmp_path, python=stock_python)
    assert answer["predictions"] == pytest.approx([7, 7, 7])
    assert answer["text"] == "hello"
    path = answer["uri"].removeprefix("mlflow-artifacts:/")
    with open_store(Settings(store=tmp_path / "store")) as store:
        cid = store.files.snapshot(MfsPath("mlflow", f"{path}/notes"), only_hash=True).cid
        (entry,) = store.files.list(MfsPath("mlflow", f"{path}/notes"))
        assert (entry.name, entry.size_bytes) == ("hello.txt", 5)  # type: ignore[union-attr] # a file
        assert str(cid).startswith("bafy")


def test_an_upload_is_cut_like_the_file_added_by_path(
    mlflow_server: StartServer, database: Path, tmp_path: Path
) -> None:
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "MLFLOW_IPFS_CHUNKER": "size-100000"},
        workers=1,
    )
    (tmp_path / "large.bin").write_bytes(DATA)
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/run/large.bin"
    assert ask(url, method="PUT", body=DATA).status == 200
    with open_store(Settings(store=tmp_path / "store")) as store:
        entry = store.files.stat(MfsPath("mlflow", "run/large.bin"))
        assert isinstance(entry, MfsEntry)
        expected = store.add(tmp_path / "large.bin", chunker=parse_chunker("size-100000"))
        assert (entry.cid, expected.new_bytes) == (expected.cid, 0)


def test_an_mfs_location_that_the_server_chooses(mlflow_server: StartServer, database: Path, tmp_path: Path) -> None:
    """Clients with mlflow-ipfs write directly to the store that they share with the server."""
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"}
    root = ("--default-artifact-root", "mfs://team/e")
    server = mlflow_server("--backend-store-uri", f"sqlite:///{database}", *root, env=env)
    answer = run_client(CODE, server.url, directory=tmp_path, env=env)
    assert answer["predictions"] == pytest.approx([7, 7, 7])
    assert answer["uri"].startswith("mfs://team/e/")
    with open_store(Settings(store=tmp_path / "store")) as store:
        assert store.files.stat(MfsPath("team", answer["uri"].removeprefix("mfs://team/") + "/notes/hello.txt"))
