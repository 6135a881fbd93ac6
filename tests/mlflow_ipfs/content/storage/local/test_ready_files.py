"""Paths that a caller gets at once: of files that can be trusted as they are, never by hashing or assembling."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.gc.assembling import Assembler
from mlflow_ipfs.content.storage.local.gc.eviction import evict
from mlflow_ipfs.content.storage.local.reading.objects import ObjectChecker
from mlflow_ipfs.content.storage.memory import MemoryStorage
from support.processes import wait_until
from support.storages import publish_file, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage

SIZE_BYTES = 20_000

pytestmark = pytest.mark.usefixtures("large_files_begin_early")


@pytest.fixture
def pieces(storage: LocalStorage) -> CID:
    """A file that the store keeps in pieces."""
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    return publish_file(storage, os.urandom(1000) + data[1000:])


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where a file is hashed or assembled."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was hashed or assembled")

    monkeypatch.setattr(Assembler, "assemble", refuse)
    monkeypatch.setattr(ObjectChecker, "_find_damage", refuse)


@pytest.mark.usefixtures("no_work")
def test_a_file_that_is_as_it_was_kept_is_ready(storage: LocalStorage) -> None:
    root = publish_file(storage, b"f" * 5000)
    assert storage.ready_file(root) == storage.file_path(root) is not None


@pytest.mark.usefixtures("no_work")
def test_a_file_in_pieces_is_not_ready(storage: LocalStorage, pieces: CID) -> None:
    assert storage.ready_file(pieces) is None


@pytest.mark.parametrize("how", ["touched", "grown", "replaced", "missing", "damage is known"])
@pytest.mark.usefixtures("no_work")
def test_a_file_that_is_not_as_it_was_kept_is_not_ready(storage: LocalStorage, how: str) -> None:
    root = publish_file(storage, b"f" * 5000)
    path = storage.file_path(root)
    assert path is not None
    path.chmod(0o644)
    if how == "touched":
        os.utime(path, ns=(0, 0))
    elif how == "grown":
        path.write_bytes(b"f" * 5001)
    elif how == "replaced":
        status = path.stat()
        path.rename(path.with_name("former"))
        path.write_bytes(b"f" * 5000)
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    elif how == "missing":
        path.unlink()
    else:
        with storage._context.database.write() as connection:
            connection.execute("UPDATE place SET damaged = 1")
    assert storage.ready_file(root) is None


def test_after_it_was_hashed_a_changed_file_is_ready_again(storage: LocalStorage) -> None:
    root = publish_file(storage, b"f" * 5000)
    path = storage.file_path(root)
    assert path is not None
    os.utime(path, ns=(0, 0))
    assert storage.ready_file(root) is None
    assert storage.ensure_file(root) == path
    assert storage.ready_file(root) == path


def test_threads_wait_for_the_one_that_assembles_longer_than_for_a_lock(
    storage: LocalStorage, pieces: CID, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembled: list[CID] = []
    assemble = Assembler.assemble

    def assemble_slowly(self: Assembler, root: CID, *, in_cache: bool) -> None:
        time.sleep(3 * storage._context.database.timeout_seconds)
        assemble(self, root, in_cache=in_cache)
        assembled.append(root)

    monkeypatch.setattr(Assembler, "assemble", assemble_slowly)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(storage.ensure_file, [pieces] * 4))
    assert assembled == [pieces]
    assert len(paths) == 1
    assert None not in paths


def test_threads_hash_a_changed_file_once(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publish_file(storage, b"f" * 5000)
    path = storage.file_path(root)
    assert path is not None
    os.utime(path, ns=(0, 0))
    hashed: list[object] = []
    find_damage = ObjectChecker._find_damage

    def hash_slowly(self: ObjectChecker, *arguments: Any) -> CID | None:
        hashed.append(arguments)
        time.sleep(2 * storage._context.database.timeout_seconds)  # a limit for waits, not for work
        return find_damage(self, *arguments)

    monkeypatch.setattr(ObjectChecker, "_find_damage", hash_slowly)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(storage.ensure_file, [root] * 4)) == {path}
    assert len(hashed) == 1


@pytest.mark.usefixtures("no_work")
def test_where_every_file_is_to_be_hashed_none_is_ready(storage: LocalStorage, directory: Path) -> None:
    root = publish_file(storage, b"f" * 5000)
    with open_local_storage(directory, verify_always=True) as strict:
        assert strict.ready_file(root) is None


def test_an_assembled_file_is_ready_and_stays_while_it_may_be_in_use(
    storage: LocalStorage, directory: Path, pieces: CID
) -> None:
    path = storage.ensure_file(pieces)
    with open_local_storage(directory) as other:
        assert other.ready_file(pieces) == path
        storage._context.leases.release_all()
        assert evict(storage._context, 0).files == 0
    assert evict(storage._context, 0).files == 1
    assert storage.ready_file(pieces) is None


def test_that_a_cached_file_is_in_use_is_recorded_without_waiting_for_a_writer(
    storage: LocalStorage, pieces: CID
) -> None:
    storage.ensure_file(pieces)
    with storage._context.database.write() as connection:
        connection.execute("UPDATE place SET last_used = 1 WHERE class = 'cache'")
    with storage._context.database.write():
        started = time.monotonic()
        assert storage.ready_file(pieces) is not None
        assert time.monotonic() - started < storage._context.database.timeout_seconds
    used = "SELECT last_used FROM place WHERE class = 'cache'"
    wait_until(lambda: rows_of(storage, used) > [(1,)], timeout_seconds=10, what="the use is recorded")


def test_memory_has_no_files() -> None:
    assert MemoryStorage().ready_file(CID.of(b"x")) is None
