"""The storages that must pass the suites in this directory. A new one is a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.base import Storage


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty storage that waits 0.2 s for locks."""
    opened: Storage
    if request.param == "memory":
        opened = MemoryStorage(timeout_seconds=0.2)
    else:
        opened = open_local_storage(tmp_path / "store", timeout_seconds=0.2)
    yield opened
    opened.close()
