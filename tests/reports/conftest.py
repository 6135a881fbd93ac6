from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.mlflow_sites import client, database, empty_database, store
from support.recorded_runs import RecordedRuns, record_runs

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

__all__ = ["client", "database", "empty_database", "store"]


@pytest.fixture
def recorded(client: MlflowClient, tmp_path: Path) -> RecordedRuns:
    """Two runs and a frozen model version in ``<tmp>/mlflow.db``, recorded through ``ipfs+sqlite://``."""
    return record_runs(client, tmp_path)
