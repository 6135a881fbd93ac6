"""Large files that the store has most of already: only what is new is kept, and a path is made when somebody asks."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import StoreFullError
from support.storages import FullDisk, check_sound, files_of, leftovers, publish_blocks, publish_file, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage

SIZE_BYTES = 100_000  # a hundred leaves


@pytest.fixture(autouse=True)
def large_files_begin_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", SIZE_BYTES // 2)


def changed(data: bytes, leaves: int) -> bytes:
    """The same bytes with other ones in the first leaves."""
    return os.urandom(leaves * 1000) + data[leaves * 1000 :]


def objects_of(storage: LocalStorage) -> set[str]:
    return {name for name in files_of(storage) if not name.endswith(".car")}


def read(storage: LocalStorage, root: CID) -> bytes:
    return open_unixfs(storage.blocks, root).read()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_which_half_is_there_adds_what_is_new(storage: LocalStorage, wrapped: bool) -> None:
    data = os.urandom(SIZE_BYTES)
    first = publish_file(storage, data, wrapped=wrapped)
    before = objects_of(storage)
    newer = changed(data, 50)
    second = publish_file(storage, newer, wrapped=wrapped)
    assert objects_of(storage) == before
    assert read(storage, second) == newer
    assert read(storage, first) == data
    check_sound(storage)
    assert not leftovers(storage.directory)


def test_a_file_of_which_less_is_there_is_kept_whole(storage: LocalStorage) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    newer = changed(data, 51)
    root = publish_file(storage, newer)
    assert len(objects_of(storage)) == 2
    assert storage.file_path(root) is not None


def test_a_smaller_file_is_kept_whole(storage: LocalStorage) -> None:
    data = os.urandom(SIZE_BYTES // 2 - 1)
    publish_file(storage, data)
    root = publish_file(storage, changed(data, 1))
    assert storage.file_path(root) is not None


def test_only_the_new_leaves_count_as_new(storage: LocalStorage) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    size_before = sum(row[0] for row in rows_of(storage, "SELECT length FROM block"))
    publish_file(storage, changed(data, 10))
    size_after = sum(row[0] for row in rows_of(storage, "SELECT length FROM block"))
    assert 10_000 < size_after - size_before < 20_000


@pytest.mark.parametrize("wrapped", [False, True])
def test_who_asks_for_a_path_gets_one(storage: LocalStorage, wrapped: bool) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data, wrapped=wrapped)
    newer = changed(data, 20)
    root = publish_file(storage, newer, wrapped=wrapped)
    assert storage.file_path(root) is None
    path = storage.ensure_file(root)
    assert path is not None
    assert path.read_bytes() == newer
    assert path.stat().st_mode & 0o777 == 0o444
    assert storage.ensure_file(root) == storage.file_path(root) == path
    assert rows_of(storage, "SELECT count(*) FROM place WHERE class = 'cache'") == [(1,)]
    # The copy is an extra: no block lies there and nowhere else.
    assert rows_of(storage, "SELECT count(*) FROM block b JOIN place p ON p.id = b.place WHERE class = 'cache'") == [
        (0,)
    ]
    check_sound(storage)


def test_a_path_is_made_once_for_all_who_ask(storage: LocalStorage, directory: Path) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    root = publish_file(storage, changed(data, 20))
    found: list[Path | None] = []
    with open_local_storage(directory) as other:
        threads = [
            threading.Thread(target=lambda store=store: found.append(store.ensure_file(root)))
            for store in (storage, other) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(found)) == 1
    assert found[0] is not None
    assert len(objects_of(storage)) == 2


def test_no_path_is_made_for_small_or_other_content(storage: LocalStorage) -> None:
    [small] = publish_blocks(storage, b"small")
    assert storage.ensure_file(small) is None


def test_no_path_is_made_that_the_cache_could_not_hold(directory: Path) -> None:
    data = os.urandom(SIZE_BYTES)
    with open_local_storage(directory, cache_bytes=SIZE_BYTES - 1) as storage:
        publish_file(storage, data)
        root = publish_file(storage, changed(data, 20))
        assert storage.ensure_file(root) is None


def test_publishing_the_file_again_keeps_one_copy(storage: LocalStorage) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    newer = changed(data, 20)
    root = publish_file(storage, newer)
    storage.ensure_file(root)
    before = files_of(storage)
    assert publish_file(storage, newer, owner="other") == root
    assert files_of(storage) == before


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_other_file_needs_survives_gc(storage: LocalStorage, wrapped: bool) -> None:
    data = os.urandom(SIZE_BYTES)
    first = publish_file(storage, data, wrapped=wrapped)
    newer = changed(data, 20)
    second = publish_file(storage, newer, wrapped=wrapped)
    storage.pins.remove(first)
    storage.collect_garbage()
    assert read(storage, second) == newer
    path = storage.ensure_file(second)
    assert path is not None
    assert path.read_bytes() == newer
    storage.pins.remove(second)
    storage.collect_garbage()
    assert not storage.blocks.has(second)
    check_sound(storage)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_object_that_is_mostly_garbage_is_given_up(storage: LocalStorage, wrapped: bool) -> None:
    data = os.urandom(SIZE_BYTES)
    first = publish_file(storage, data, wrapped=wrapped)
    second = publish_file(storage, data[:60_000], wrapped=wrapped)  # lies wholly in the first
    third = publish_file(storage, data[:30_000], wrapped=wrapped)
    assert len(objects_of(storage)) == 2  # the third is too small to be kept in pieces
    storage.pins.remove(first)
    storage.pins.remove(second)
    report = storage.collect_garbage()
    assert report.removed_blocks > 70
    assert read(storage, third) == data[:30_000]
    assert storage.file_path(third) is not None
    assert len(objects_of(storage)) == 1
    check_sound(storage)


def test_damaged_leaves_do_not_count_as_there(storage: LocalStorage) -> None:
    data = os.urandom(SIZE_BYTES)
    first = publish_file(storage, data)
    path = storage.file_path(first)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"!" + data[1:])
    assert len(storage.scrub().problems) == 1
    root = publish_file(storage, data)
    assert read(storage, root) == data
    assert storage.file_path(root) is not None
    storage.collect_garbage()  # what is in quarantine is needed no more
    check_sound(storage)


@pytest.mark.parametrize("room_for", range(0, 60, 3))
def test_a_full_disk_keeps_nothing_and_loses_nothing(directory: Path, room_for: int) -> None:
    disk = FullDisk()
    data = os.urandom(SIZE_BYTES)
    with open_local_storage(directory, disk=disk) as storage:
        first = publish_file(storage, data)
        newer = changed(data, 50)
        disk.room_for = room_for
        try:
            publish_file(storage, newer)
        except StoreFullError:
            assert not leftovers(directory)
        disk.room_for = 1_000_000
        assert read(storage, first) == data
        root = publish_file(storage, newer)
        disk.room_for = room_for
        path = storage.ensure_file(root)  # no room for it is no error
        assert path is None or path.read_bytes() == newer
        disk.room_for = 1_000_000
        assert read(storage, root) == newer
        check_sound(storage)


def test_a_view_of_it_is_a_file_of_its_own(storage: LocalStorage, tmp_path: Path) -> None:
    data = os.urandom(SIZE_BYTES)
    publish_file(storage, data)
    newer = changed(data, 20)
    root = publish_file(storage, newer)
    store = ContentStore(storage)
    view = store.view(root)
    assert view.read_bytes() == newer
    assert store.view(root, dst=tmp_path / "copy").read_bytes() == newer
    (tmp_path / "copy").write_bytes(b"changed by its owner")
    assert read(storage, root) == newer
