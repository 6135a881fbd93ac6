from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.command_line import CommandLine
from support.mlflow_sites import client, database, empty_database, store
from support.stock_sites import StockSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["client", "database", "empty_database", "store"]


@pytest.fixture
def site(database: Path) -> StockSite:
    """Return an MLflow without this package, in the test's directory."""
    return StockSite(database.parent)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """Yield the command, with a store that does not exist yet and that MLflow's plugins in this process use too."""
    from mlflow_ipfs.opening import close_shared_stores

    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/store")
    yield CommandLine(tmp_path / "store")
    close_shared_stores()
