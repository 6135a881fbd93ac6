"""A local store under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.publishing import object_writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "store"


@pytest.fixture
def large_files_begin_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few thousand bytes count as large ones, of which only what is new is kept."""
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 9000)


@pytest.fixture
def storage(directory: Path) -> Iterator[LocalStorage]:
    """An empty local store that waits 0.2 s for locks."""
    with open_local_storage(directory, timeout_seconds=0.2) as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a copy of the store goes."""
    return tmp_path / "copy"
