"""MLflow and SQLAlchemy find us by entry points: each leads to what its group expects."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest
from mlflow.store.artifact.artifact_repo import ArtifactRepository

OURS = importlib.metadata.distribution("mlflow-ipfs").entry_points


def find_group(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in OURS if entry.group == group}


def test_the_names_are_the_uri_schemes_that_we_promise() -> None:
    assert set(find_group("mlflow.artifact_repository")) == {"ipfs", "mfs", "mlflow-artifacts"}
    databases = {"ipfs+sqlite", "ipfs+postgresql", "ipfs+postgresql+psycopg", "ipfs+postgresql+psycopg2"}
    assert set(find_group("mlflow.tracking_store")) == databases
    assert set(find_group("mlflow.model_registry_store")) == databases
    assert set(find_group("sqlalchemy.dialects")) == {"ipfs.sqlite", "ipfs.postgresql"}


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: f"{entry.group}:{entry.name}")
def test_every_entry_point_loads(entry: importlib.metadata.EntryPoint) -> None:
    assert callable(entry.load())


@pytest.mark.parametrize("entry", find_group("mlflow.artifact_repository").values(), ids=lambda entry: entry.name)
def test_an_artifact_repository_is_what_mlflow_can_build(entry: importlib.metadata.EntryPoint) -> None:
    kind = entry.load()
    assert not inspect.isclass(kind) or issubclass(kind, ArtifactRepository)
    assert kind.__name__  # MLflow reads it
    assert list(inspect.signature(kind).parameters) == ["artifact_uri", "tracking_uri", "registry_uri"]


def test_a_tracking_store_is_built_from_the_two_uris_that_mlflow_gives() -> None:
    for entry in find_group("mlflow.tracking_store").values():
        assert list(inspect.signature(entry.load()).parameters) == ["store_uri", "artifact_uri"]


def test_a_model_registry_store_is_built_from_the_one_uri_that_mlflow_always_gives() -> None:
    for entry in find_group("mlflow.model_registry_store").values():
        assert list(inspect.signature(entry.load()).parameters) == ["store_uri"]
