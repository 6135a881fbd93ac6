from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import sqlalchemy

from mlflow_ipfs.binding.registry_id import ensure_registry_id

if TYPE_CHECKING:
    from pathlib import Path


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/a.db")
    first = ensure_registry_id(engine)
    assert len(first) == 16
    assert ensure_registry_id(engine) == first
    engine.dispose()
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/b.db")
    assert ensure_registry_id(other) != first
    other.dispose()


def test_many_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    found = []

    def ask() -> None:
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/a.db", connect_args={"timeout": 30})
        start.wait(30)
        found.append(ensure_registry_id(engine))
        engine.dispose()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(set(found)) == 1
