"""Fixtures of the Lightning tests: both packages are loaded before ``lightning_ipfs``, and MLflow is in memory."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.training.runlog import opening
from support.run_targets import MemoryTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The packages of the tests, before lightning_ipfs, as its documentation asks.
if find_spec("pytorch_lightning"):
    import pytorch_lightning  # noqa: F401
if find_spec("lightning"):
    import lightning.pytorch  # noqa: F401


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def package(request: pytest.FixtureRequest) -> Any:
    """The Lightning package whose Trainer and module a test uses."""
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryTarget]:
    """MLflow in memory, for everything that opens a run log."""
    target = MemoryTarget()
    monkeypatch.setattr(opening, "MlflowTarget", lambda _: target)
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    yield target
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
