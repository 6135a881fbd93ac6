"""The Keras example, run as a user runs it, on each backend."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_ipfs.config import Settings
from mlflow_ipfs.opening import open_store
from support.metric_steps import repeated, steps_in_mlflow
from support.not_run import not_run

pytestmark = pytest.mark.frameworks

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
EPOCHS = list(range(8))


@pytest.fixture(scope="module", params=["torch", "tensorflow"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The directory in which the example was run, and its environment."""
    if importlib.util.find_spec(request.param) is None:
        not_run(f"{request.param} is missing; `make test` installs it")
    directory = tmp_path_factory.mktemp(request.param)
    env = os.environ | {
        "KERAS_BACKEND": request.param,
        "MLFLOW_TRACKING_URI": f"ipfs+sqlite:///{directory}/mlflow.db",
        "MLFLOW_IPFS_STORE": f"local:{directory}/store",
        "MLFLOW_IPFS_RUNLOG": f"{directory}/runlog",
        "PYTHONWARNINGS": "ignore",
    }
    run(directory, env, "train_keras.py")
    return directory, env


def run(directory: Path, env: dict[str, str], script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, DIGITS / script, *arguments],
        cwd=directory, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def client(site: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    directory, env = site
    monkeypatch.setenv("MLFLOW_IPFS_STORE", env["MLFLOW_IPFS_STORE"])
    return MlflowClient(f"ipfs+sqlite:///{directory}/mlflow.db")


def test_the_run_has_curves_resources_and_latencies(client: MlflowClient) -> None:
    found = steps_in_mlflow(client, str(client.get_model_version("digits-keras", "1").run_id))
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "samples_per_second", "learning_rate"):
        assert found[key] == EPOCHS, key
    assert found["inference/predict/latency_p50_ms"] == [EPOCHS[-1]]
    assert any(key.startswith("system/") for key in found)
    assert repeated(found) == {}


def test_it_learns(client: MlflowClient) -> None:
    run_id = str(client.get_model_version("digits-keras", "1").run_id)
    assert client.get_run(run_id).data.metrics["val_accuracy"] > 0.9


def test_the_frozen_model_is_loaded_by_name_and_by_cid(site: tuple[Path, dict[str, str]], client: MlflowClient) -> None:
    version = client.get_model_version_by_alias("digits-keras", "champion")
    printed = run(*site, "predict.py", "models:/digits-keras@champion", f"ipfs://{version.tags['ipfs.cid']}")
    lines = [line for line in printed.splitlines() if line.startswith("{")]  # Keras shows its progress, too
    by_name, by_cid = map(json.loads, lines)
    assert by_name["accuracy"] == by_cid["accuracy"] > 0.95
    assert by_name["outputs_sha256"] == by_cid["outputs_sha256"]


def test_the_version_names_its_dataset(site: tuple[Path, dict[str, str]], client: MlflowClient) -> None:
    directory, _ = site
    tags: dict[str, Any] = client.get_model_version("digits-keras", "1").tags
    with open_store(Settings(store=directory / "store")) as store:
        assert store.verify(tags["ipfs.dataset_cids"], against=directory / "digits.parquet").ok
