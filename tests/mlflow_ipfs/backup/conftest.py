from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.backup_sites import Site
from support.mlflow_sites import client, database, empty_database, store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["client", "database", "empty_database", "store"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A store and a database to back up."""
    site = Site(tmp_path)
    yield site
    site.storage.close()
