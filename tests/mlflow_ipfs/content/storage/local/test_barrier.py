"""The log of new names is removed by its gc, by the next gc, or by the next opening of the store."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.storage.local.gc import barrier
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.errors import IntegrityError
from support.processes import fork_child
from support.storages import publish_blocks, publish_file, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.database import Database

LONG_SECONDS = 60.0
LEFT = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'named%'"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    with open_local_storage(tmp_path / "store", timeout_seconds=0.2) as storage:
        yield storage


@pytest.fixture
def busy(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let another process write when a gc removes its log."""
    lock = FileLock(storage.directory / "write.lock", timeout_seconds=LONG_SECONDS, purpose="is in the way")
    lower = barrier._lower

    def lower_while_busy(database: Database) -> None:
        with lock.exclusive():
            lower(database)

    with monkeypatch.context() as patch:
        patch.setattr(barrier, "_lower", lower_while_busy)
        yield


def is_left(storage: LocalStorage) -> bool:
    return rows_of(storage, LEFT) != [(0,)]


@pytest.mark.usefixtures("busy")
def test_a_gc_that_cannot_remove_its_log_has_done_its_work(storage: LocalStorage) -> None:
    publish_file(storage, b"gone" * 5000, owner=None)
    assert storage.collect_garbage().removed_blocks > 0
    assert is_left(storage)
    with open_local_storage(storage.directory) as other:
        assert not is_left(other)
        assert rows_of(other, "SELECT count(*) FROM pin") == [(0,)]


@pytest.mark.usefixtures("busy")
def test_the_error_of_a_gc_is_raised_and_not_that_of_removing_the_log(storage: LocalStorage) -> None:
    message = "a node that is needed cannot be read"
    with pytest.raises(IntegrityError, match=message), barrier.write_barrier(storage._context.database):
        raise IntegrityError(message)
    assert is_left(storage)


def test_the_next_gc_removes_the_log_too(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(barrier, "_lower", lambda _: None)
        storage.collect_garbage()
    assert is_left(storage)
    [cid] = publish_blocks(storage, b"named while no gc runs")
    storage.collect_garbage()
    assert not is_left(storage)
    assert storage.blocks.has(cid)


def test_opening_a_store_does_not_disturb_a_running_gc(storage: LocalStorage) -> None:
    with storage._context.gc_lock.exclusive(), barrier.write_barrier(storage._context.database) as log:
        open_local_storage(storage.directory).close()
        assert is_left(storage)
        [cid] = publish_blocks(storage, b"named while it marks")
        with closing(sqlite3.connect(storage.directory / "store.db")) as connection:
            assert log.read(connection) == [cid]


def test_opening_a_busy_store_does_not_wait_for_its_writer(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier, "_lower", lambda _: None)
    storage.collect_garbage()
    lock = FileLock(storage.directory / "write.lock", timeout_seconds=LONG_SECONDS, purpose="is in the way")
    with lock.exclusive():
        started = time.monotonic()
        with open_local_storage(storage.directory, timeout_seconds=LONG_SECONDS) as other:
            assert time.monotonic() - started < LONG_SECONDS / 2
            assert is_left(other)
    open_local_storage(storage.directory).close()
    assert not is_left(storage)


def test_opening_a_store_removes_the_log_of_a_killed_gc(storage: LocalStorage) -> None:
    def die_in_the_midst() -> None:
        with open_local_storage(storage.directory) as other, barrier.write_barrier(other._context.database):
            os._exit(0)

    _, status = os.waitpid(fork_child(die_in_the_midst), 0)
    assert status == 0
    assert is_left(storage)
    open_local_storage(storage.directory).close()
    assert not is_left(storage)
