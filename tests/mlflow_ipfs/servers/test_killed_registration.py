"""`kill -9` during the registration of a version: everything that MLflow committed is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.entities.logged_model_status import LoggedModelStatus

from mlflow_ipfs.plugins.model_registry_store import build_model_registry_store
from support.mlflow_server import clean_environment
from support.mlflow_sites import pin_owners, storage_location

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow

# Registers and dies at the named step of `create_model_version`, as by `kill -9`.
REGISTER = """
import os, signal, sys
import mlflow
from mlflow_ipfs.binding.registry import registry_store
from mlflow_ipfs.binding.mlflow_compat import SqlRegistryStore
from mlflow_ipfs.binding.registry.version_pins import VersionPins

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

step, source = sys.argv[1:]
if step == "before MLflow's commit":
    SqlRegistryStore.create_model_version = die
elif step == "after MLflow's commit":
    VersionPins.finish = die
elif step == "after the version's pin":
    VersionPins._confirm = lambda self, pending: False  # as for a CID with other changes
    VersionPins._unfreeze_unneeded = die
elif step == "before the version's pin":
    VersionPins._refreeze = die
mlflow.MlflowClient().create_model_version("m", source)
"""


@pytest.fixture
def model(client: MlflowClient, tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("flavors: {}\n")
    found = client.create_logged_model("0", name="m")
    client.log_model_artifacts(found.model_id, str(tmp_path / "model"))
    client.finalize_logged_model(found.model_id, LoggedModelStatus.READY)
    client.create_registered_model("m")
    return str(found.model_id)


@pytest.mark.parametrize(
    "step", ["before MLflow's commit", "after MLflow's commit", "before the version's pin", "after the version's pin"]
)
def test_a_killed_registration(
    step: str,
    model: str,
    client: MlflowClient,
    store: ContentStore,
    database: Path,
    tmp_path: Path,
) -> None:
    env = clean_environment(
        MLFLOW_IPFS_STORE=f"local:{tmp_path}/store", MLFLOW_TRACKING_URI=f"ipfs+sqlite:///{database}"
    )
    command = [sys.executable, "-c", REGISTER, step, f"models:/{model}"]
    assert subprocess.run(command, env=env, timeout=90, check=False).returncode == -signal.SIGKILL
    committed = step != "before MLflow's commit"
    assert len(client.search_model_versions("name = 'm'")) == committed

    store.storage.entries.delete("mlflow", "")  # the model's own files go, as by `mlflow gc`
    store.collect_garbage()

    registry = build_model_registry_store(f"ipfs+sqlite:///{database}")
    owner = [f"model-version:{registry.registry_id}/m/1"]
    assert pin_owners(store) == (owner if committed else [])
    assert len(list(store.storage.entries.list_frozen())) == committed
    if committed:
        store.collect_garbage()
        assert os.listdir(mlflow.artifacts.download_artifacts(storage_location(database, "m", 1))) == ["MLmodel"]


WAIT = """
import sys, time
import mlflow
from mlflow_ipfs.binding.mlflow_compat import SqlRegistryStore
from mlflow_ipfs.binding.registry import registry_store

def wait(*args, **kwargs):
    print("waiting", flush=True)
    time.sleep(600)

SqlRegistryStore.create_model_version = wait
mlflow.MlflowClient().create_model_version("m", sys.argv[1])
"""


def test_a_registration_in_another_process_keeps_its_pin_until_that_process_ends(
    model: str, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    env = clean_environment(
        MLFLOW_IPFS_STORE=f"local:{tmp_path}/store", MLFLOW_TRACKING_URI=f"ipfs+sqlite:///{database}"
    )
    command = [sys.executable, "-c", WAIT, f"models:/{model}"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "waiting":
            assert process.poll() is None
        build_model_registry_store(f"ipfs+sqlite:///{database}")
        [owner] = pin_owners(store)
        assert owner.startswith("model-version-pending:")
        process.kill()
    build_model_registry_store(f"ipfs+sqlite:///{database}")
    assert pin_owners(store) == []
    assert list(store.storage.entries.list_frozen()) == []
