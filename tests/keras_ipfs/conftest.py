"""Fixtures for tests with Keras. A process has one backend: torch, or the one that ``KERAS_BACKEND`` names."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.training.runlog import opening
from support.keras_models import make_model
from support.mlflow_sites import client, database, empty_database, store
from support.run_targets import MemoryTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if os.environ["KERAS_BACKEND"] == "tensorflow":
    collect_ignore = ["test_keras_on_tensorflow.py", "test_keras_threads.py"]

__all__ = ["client", "database", "empty_database", "store"]


@pytest.fixture(autouse=True)
def _own_run_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryTarget]:
    """MLflow in memory, for everything that opens a run log."""
    target = MemoryTarget()
    monkeypatch.setattr(opening, "MlflowTarget", lambda _: target)
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    yield target
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Any:
    return make_model()
