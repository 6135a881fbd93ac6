"""The flavours ``mlflow.keras`` and ``mlflow.tensorflow`` at L1 and L2: logged, frozen, and loaded in another process."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store
from support.clients import run_client
from support.mlflow_server import run_mlflow_server
from support.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

# The requirements are given, because MLflow would load the model in one more process to find them.
LOG = """
    import keras, mlflow, numpy
    flavour, name = sys.argv[1:]
    flavour = getattr(mlflow, flavour)
    def net(weight):
        made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        made.set_weights([numpy.array([[weight]]), numpy.array([1.0])])
        return made
    x = numpy.array([[3.0]], dtype="float32")
    signature = mlflow.models.infer_signature(x, x)
    options = {"signature": signature, "pip_requirements": ["mlflow", "keras"]}
    with mlflow.start_run() as run:
        info = flavour.log_model(net(2.0), name="net", registered_model_name=name, **options)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, "champion", info.registered_model_version)
    # Then the files of the logged model are overwritten.
    flavour.save_model(net(0.0), "other", **options)
    client.log_model_artifacts(info.model_id, "other")
    answer([keras.backend.backend(), info.model_id, client.get_model_version(name, "1").tags["ipfs.cid"]])
"""

LOAD = """
    import mlflow, numpy
    flavour, *uris = sys.argv[1:]
    x = numpy.array([[3.0]], dtype="float32")
    found = [getattr(mlflow, flavour).load_model(uris[0]).predict(x, verbose=0)]
    found += [mlflow.pyfunc.load_model(uri).predict(x) for uri in uris]
    answer([float(numpy.ravel(values)[0]) for values in found])
"""

KERAS_ON_TORCH, KERAS_ON_TENSORFLOW, TENSORFLOW = (
    ("keras", "torch"),
    ("keras", "tensorflow"),
    ("tensorflow", "tensorflow"),
)


@pytest.fixture(scope="module")
def l1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of an L1 server, and its directory."""
    directory = tmp_path_factory.mktemp("l1")
    arguments = (
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--registry-store-uri", f"ipfs+sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", "mfs://mlflow"),
    )
    env = {"MLFLOW_IPFS_STORE": f"local:{directory}/store"}
    with run_mlflow_server(directory, *arguments, env=env, workers=1) as server:
        yield server.url, directory


def log_and_load(case: tuple[str, str], env: dict[str, str], directory: Path, *uris: str) -> tuple[list[float], str]:
    """Log, register and overwrite a model; load it in a new process. Return the predictions, and the CID of the version.

    The first URI is loaded by its flavour, too. ``{name}``, ``{model_id}`` and ``{cid}`` in the URIs are replaced.
    """
    flavour, backend = case
    if importlib.util.find_spec(backend) is None:
        not_run(f"{backend} is missing; `make test` installs it")
    name = "-".join(case)
    env = env | {"KERAS_BACKEND": backend}
    used, model_id, cid = run_client(LOG, flavour, name, directory=directory, env=env)
    assert used == backend
    filled = [uri.format(name=name, model_id=model_id, cid=cid) for uri in uris]
    return run_client(LOAD, flavour, *filled, directory=directory, env=env), cid


@pytest.mark.parametrize("case", [KERAS_ON_TORCH, KERAS_ON_TENSORFLOW, TENSORFLOW], ids="-on-".join)
def test_l2(case: tuple[str, str], database: Path, tmp_path: Path) -> None:
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "MLFLOW_TRACKING_URI": f"ipfs+sqlite:///{database}"}
    uris = ["models:/{name}@champion", "ipfs://{cid}", "models:/{model_id}"]
    values, cid = log_and_load(case, env, tmp_path, *uris)
    assert values == [7.0, 7.0, 7.0, 1.0], "the version is frozen; the logged model has the new weights"
    with open_store(Settings(store=tmp_path / "store")) as store:
        assert store.verify(cid).ok


@pytest.mark.server
@pytest.mark.parametrize("case", [KERAS_ON_TORCH, TENSORFLOW], ids="-on-".join)
def test_l1(case: tuple[str, str], l1: tuple[str, Path], tmp_path: Path) -> None:
    url, directory = l1
    env = {"MLFLOW_TRACKING_URI": url, "MLFLOW_IPFS_STORE": f"local:{tmp_path}/of-the-client"}
    values, cid = log_and_load(case, env, tmp_path, "models:/{name}@champion", "models:/{model_id}")
    assert values == [7.0, 7.0, 1.0]
    assert not (tmp_path / "of-the-client").exists(), "the server has the store"
    with open_store(Settings(store=directory / "store")) as store:
        assert store.verify(cid).ok
