"""Abandoned pending pins with PostgreSQL, which may still be committing for a client that died just now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.binding.registry import registry_store
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.plugins.model_registry_store import build_model_registry_store

if TYPE_CHECKING:
    from mlflow_ipfs.content.store import ContentStore
    from support.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

INSERT = "INSERT INTO registered_models (name, creation_time) VALUES ('m', 1)"
INSERT_VERSION = "INSERT INTO model_versions (name, version, creation_time, current_stage) VALUES ('m', 1, 1, 'None')"


def test_a_pin_stays_while_a_transaction_that_wrote_versions_is_open(
    postgres: PostgresServer, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_store, "_WRITERS_SECONDS", 1)
    database = postgres.create_database()
    uri = postgres.uri(database).replace("postgresql:", "ipfs+postgresql:")
    registry = build_model_registry_store(uri)
    root = store.add_bytes(b"model", pin=None)
    pin = Pin(f"model-version-pending:{registry.registry_id}/1000-ab-{'0' * 32}", root, PinState.PENDING)
    store.pins.add(pin)
    with postgres.connect(database, isolation_level="READ COMMITTED") as connection:
        connection.execute(sqlalchemy.text(INSERT))
        connection.execute(sqlalchemy.text(INSERT_VERSION))
        build_model_registry_store(uri)
        assert list(store.pins.list()) == [pin]
        connection.rollback()
    build_model_registry_store(uri)
    assert list(store.pins.list()) == []
