"""Fixtures for tests of the plugin modules: a store, a database and an MLflow client, below the test directory."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.db.utils import _safe_initialize_tables, create_sqlalchemy_engine_with_retry

from mlflow_ipfs.opening import close_shared_stores, shared_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.store import ContentStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContentStore]:
    """Yield the store that the plugin modules use in this test, at ``<tmp>/store``."""
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/store")
    yield shared_store()
    close_shared_stores()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file with empty MLflow tables. Creating one takes seconds; copying it is fast."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{file}")
    _safe_initialize_tables(engine)
    engine.dispose()
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """Return a database for this test alone, ``<tmp>/mlflow.db``."""
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def client(database: Path, store: ContentStore) -> Iterator[MlflowClient]:
    """Yield an MLflow client in this process, on ``ipfs+sqlite://`` and without a server."""
    del store
    mlflow.set_tracking_uri(f"ipfs+sqlite:///{database}")
    yield MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # None puts the default back
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]


def storage_location(database: Path, name: str, version: int | str) -> str:
    """Return the storage location of a model version in MLflow's database."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?", (name, int(version))
        ).fetchall()
    assert len(rows) == 1
    return str(rows[0][0])


def pin_owners(store: ContentStore, prefix: str = "model-version") -> list[str]:
    """Return the owners of the pins that model versions need."""
    return [pin.owner for pin in store.pins.list(owner_prefix=prefix)]


@contextmanager
def stock_tracking(client: MlflowClient) -> Iterator[None]:
    """Log inputs with MLflow's own method, without the checks of ``ContentTrackingStore``."""
    tracking = client._tracking_client.store
    ours = vars(type(tracking))["log_inputs"]
    del type(tracking).log_inputs
    try:
        yield
    finally:
        type(tracking).log_inputs = ours
