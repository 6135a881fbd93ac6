"""The content that a database has claimed, and dropping it when the database is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases.claims import list_databases
from mlflow_ipfs.binding.databases.database_content import DatabaseContent, drop_content, find_content
from mlflow_ipfs.binding.databases.sightings import observe
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import NotFoundError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID

VERSION = "model-version"


@pytest.fixture
def store() -> Iterator[ContentStore]:
    with ContentStore(MemoryStorage()) as store:
        yield store


class Database:
    """A database file with one model version, whose content is a directory of its tree."""

    def __init__(self, store: ContentStore, path: Path, data: bytes, *, behind: str | None = None) -> None:
        self.path = path
        engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=NullPool)
        self.id = ensure_registry_id(engine)
        observe(store.storage, self.id, engine)
        engine.dispose()
        self.tree = MfsPath("mlflow", behind if behind is not None else self.id)
        source = path.with_suffix(".bin")
        source.write_bytes(data)
        store.files.put_file(self.tree.join("0/run/artifacts/model/weights"), source)
        self.cid: CID = store.files.freeze(self.tree.join("0/run/artifacts/model"), f"{VERSION}:{self.id}/m/1").cid


@pytest.fixture
def gone(store: ContentStore, tmp_path: Path) -> Database:
    database = Database(store, tmp_path / "gone.db", b"only its" * 1000)
    database.path.unlink()
    return database


@pytest.fixture
def kept(store: ContentStore, tmp_path: Path) -> Database:
    return Database(store, tmp_path / "kept.db", b"of the other" * 1000)


def counts(content: DatabaseContent) -> tuple[int, int, int]:
    return len(content.pins), len(content.frozen), content.files


def test_what_only_a_vanished_database_named_is_dropped(store: ContentStore, gone: Database, kept: Database) -> None:
    assert counts(find_content(store, gone.id)) == (1, 1, 1)
    assert counts(drop_content(store, gone.id)) == (1, 1, 1)
    store.collect_garbage(grace_seconds=0)
    assert not store.has(gone.cid)
    assert store.has(kept.cid)
    assert store.files.stat(kept.tree.join("0/run/artifacts/model/weights")) is not None
    assert list(list_databases(store.storage)) == [kept.id]
    with pytest.raises(NotFoundError, match="databases ls"):
        drop_content(store, gone.id)


def test_a_database_that_exists_loses_nothing(store: ContentStore, kept: Database) -> None:
    with pytest.raises(PolicyError, match=f"sqlite:///{kept.path} may still be in use"):
        drop_content(store, kept.id)
    assert counts(find_content(store, kept.id)) == (1, 1, 1)
    assert counts(drop_content(store, kept.id, even_if_in_use=True)) == (1, 1, 1)


def test_content_that_another_database_has_too_stays(store: ContentStore, gone: Database, kept: Database) -> None:
    store.pins.add(Pin(f"{VERSION}:{kept.id}/copied/1", gone.cid))
    drop_content(store, gone.id)
    store.collect_garbage(grace_seconds=0)
    assert store.has(store.resolve(gone.cid, "weights"))


def test_a_server_tree_is_dropped_only_by_name(store: ContentStore, tmp_path: Path, kept: Database) -> None:
    served = Database(store, tmp_path / "served.db", b"behind a server" * 1000, behind="team")
    served.path.unlink()
    assert counts(find_content(store, served.id)) == (1, 1, 0), "paths behind a server contain no registry id"
    with pytest.raises(PolicyError, match=f"contains mfs://mlflow/{kept.id}"):
        drop_content(store, served.id, (MfsPath("mlflow", ""),))
    assert counts(drop_content(store, served.id, (MfsPath("mlflow", "team"),))) == (1, 1, 1)
    store.collect_garbage(grace_seconds=0)
    assert not store.has(served.cid)
    assert store.has(kept.cid)
