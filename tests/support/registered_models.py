"""Fixtures for tests of the registry store: a logged model, and a version of it that is registered as ``digits``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.entities.logged_model_status import LoggedModelStatus

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def model_directory(directory: Path, weights: str = "one") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "MLmodel").write_text("flavors: {}\n")
    (directory / "weights.bin").write_text(weights)
    return directory


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    return str(client.create_run(client.create_experiment("e")).info.run_id)


@pytest.fixture
def logged_model(client: MlflowClient, run_id: str, tmp_path: Path) -> Any:
    run = client.get_run(run_id)
    model = client.create_logged_model(run.info.experiment_id, name="net", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(model_directory(tmp_path / "model")))
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


@pytest.fixture
def version(client: MlflowClient, logged_model: Any) -> ModelVersion:
    client.create_registered_model("digits")
    return client.create_model_version("digits", f"models:/{logged_model.model_id}", model_id=logged_model.model_id)


@pytest.fixture
def registry_id(client: MlflowClient) -> str:
    return str(client._get_registry_client().store.registry_id)


def weights_of(uri: str) -> str:
    return (Path(mlflow.artifacts.download_artifacts(uri)) / "weights.bin").read_text()
