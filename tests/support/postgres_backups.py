"""Fixtures for backups of PostgreSQL: a database with one row, and a store with one file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.binding.databases.named_database import find_database
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.storages import publish_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from support.postgres import PostgresServer

WAIT_SECONDS = 60


@pytest.fixture
def url(postgres: PostgresServer) -> URL:
    """A database with a table that MLflow has."""
    name = postgres.create_database()
    postgres.ask(name, "CREATE TABLE experiments (number INTEGER)")
    postgres.ask(name, "INSERT INTO experiments VALUES (7)")
    return find_database(postgres.uri(name), {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with open_local_storage(tmp_path / "store", timeout_seconds=WAIT_SECONDS) as storage:
        publish_file(storage, os.urandom(20_000))
        yield ContentStore(storage)
