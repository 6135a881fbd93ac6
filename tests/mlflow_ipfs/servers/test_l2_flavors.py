"""L2 without a server: real flavours, logged in one process and loaded in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store
from support.clients import run_client

if TYPE_CHECKING:
    from pathlib import Path


SKLEARN = """
    import mlflow, sklearn.linear_model
    x = [[0.0], [1.0], [2.0]]
    fitted = sklearn.linear_model.LinearRegression().fit(x, [1.0, 3.0, 5.0])
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(fitted, name="net", registered_model_name="net", input_example=x)
    mlflow.MlflowClient().set_registered_model_alias("net", "champion", info.registered_model_version)
    answer([run.info.run_id, info.model_id])
"""

PYTORCH = """
    import mlflow, numpy, torch
    net = torch.nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(2.0); net.bias.fill_(1.0)
    with mlflow.start_run() as run:
        x = numpy.array([[3.0]], dtype="float32")
        info = mlflow.pytorch.log_model(net, name="net", registered_model_name="net", input_example=x)
    mlflow.MlflowClient().set_registered_model_alias("net", "champion", info.registered_model_version)
    answer([run.info.run_id, info.model_id])
"""

LOAD = """
    import mlflow, numpy
    client = mlflow.MlflowClient()
    cid = client.get_model_version("net", "1").tags["ipfs.cid"]
    x = numpy.array([[3.0]], dtype="float32")
    uris = [*sys.argv[1:], f"ipfs://{cid}"]
    values = [float(numpy.ravel(mlflow.pyfunc.load_model(uri).predict(x))[0]) for uri in uris]
    mlflow.artifacts.download_artifacts(f"ipfs://{cid}", dst_path="model")
    answer([values, cid])
"""


@pytest.fixture
def env(database: Path, tmp_path: Path) -> dict[str, str]:
    return {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "MLFLOW_TRACKING_URI": f"ipfs+sqlite:///{database}"}


@pytest.mark.parametrize(
    "code", [pytest.param(SKLEARN, id="sklearn"), pytest.param(PYTORCH, id="pytorch", marks=pytest.mark.frameworks)]
)
@pytest.mark.slow
def test_a_model_is_logged_and_loaded_by_every_uri(code: str, env: dict[str, str], tmp_path: Path) -> None:
    run_id, model_id = run_client(code, directory=tmp_path, env=env)
    uris = ["models:/net@champion", "models:/net/1", f"runs:/{run_id}/net", f"models:/{model_id}"]
    values, cid = run_client(LOAD, *uris, directory=tmp_path, env=env)
    assert values == pytest.approx([7.0] * 5)
    with open_store(Settings(store=tmp_path / "store")) as store:
        assert store.verify(cid, against=tmp_path / "model").ok
    names_of_requirements(tmp_path / "model")


def names_of_requirements(model: Path) -> None:
    """A model must load where mlflow-ipfs is not installed: MLflow must not infer it as a requirement."""
    written = [model / name for name in ("requirements.txt", "conda.yaml", "python_env.yaml", "MLmodel")]
    assert (model / "requirements.txt").read_text().startswith("mlflow==")
    for file in written:
        text = file.read_text()
        assert "mlflow-ipfs" not in text
        assert "mlflow_ipfs" not in text
