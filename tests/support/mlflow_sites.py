"""Fixtures for tests of the MLflow doors: a store, a database and MLflow pointed at them, all in the test's directory."""

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
    """The store that the doors use in this test, in ``<tmp>/store``."""
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/store")
    yield shared_store()
    close_shared_stores()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables and nothing in them. Making one takes seconds, a copy does not."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{file}")
    _safe_initialize_tables(engine)
    engine.dispose()
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A database of this test's own, ``<tmp>/mlflow.db``."""
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def client(database: Path, store: ContentStore) -> Iterator[MlflowClient]:
    """MLflow in this process, on ``ipfs+sqlite://``: no server."""
    del store
    mlflow.set_tracking_uri(f"ipfs+sqlite:///{database}")
    yield MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # None puts the default back
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]


def storage_location(database: Path, name: str, version: int | str) -> str:
    """What MLflow's database says of where a version's files are."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?", (name, int(version))
        ).fetchall()
    assert len(rows) == 1
    return str(rows[0][0])


def pin_owners(store: ContentStore, prefix: str = "model-version") -> list[str]:
    """Who pins what model versions need, with a stand-in for the random part of a pending owner."""
    return [pin.owner for pin in store.pins.list(owner_prefix=prefix)]


@contextmanager
def stock_tracking(client: MlflowClient) -> Iterator[None]:
    """Log inputs as MLflow's own tracking store does, without what ours adds."""
    tracking = client._tracking_client.store
    ours = vars(type(tracking))["log_inputs"]
    del type(tracking).log_inputs
    try:
        yield
    finally:
        type(tracking).log_inputs = ours
