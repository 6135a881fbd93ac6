"""Where a local store puts blocks: objects, packs, rows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlflow_ipfs.content.car.format import CarReader
from mlflow_ipfs.content.cid import CID, multihash_text
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local.files import packs
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.publishing import row_writer
from support.storages import (
    check_sound,
    delete_block,
    files_of,
    leftovers,
    publish_blocks,
    publish_file,
    put_file,
    raw,
    rows_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from mlflow_ipfs.content.storage.local import LocalStorage


def small_blocks(count: int, size_bytes: int = 1000) -> list[bytes]:
    return [number.to_bytes(4, "big") * (size_bytes // 4) for number in range(count)]


def test_a_small_publication_is_kept_inline(storage: LocalStorage) -> None:
    publish_blocks(storage, *small_blocks(60))
    assert files_of(storage) == set()
    assert rows_of(storage, "SELECT count(*) FROM block WHERE data IS NOT NULL") == [(60,)]


def test_a_larger_publication_becomes_one_pack(storage: LocalStorage) -> None:
    blocks = small_blocks(10_500)
    publish_blocks(storage, *blocks)
    [name] = files_of(storage)
    assert name.endswith(".car")
    assert rows_of(storage, "SELECT count(*) FROM block WHERE data IS NOT NULL") == [(0,)]
    check_sound(storage)


def test_a_pack_is_a_car_that_anybody_can_read(storage: LocalStorage, directory: Path) -> None:
    blocks = small_blocks(100)
    publish_blocks(storage, *blocks)
    [name] = files_of(storage)
    with (directory / name).open("rb") as file:
        assert list(CarReader(file)) == [raw(block) for block in blocks]


def test_a_full_pack_is_sealed_and_another_begun(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "SEAL_BYTES", 100_000)
    publish_blocks(storage, *small_blocks(250))
    assert len(files_of(storage)) == 3
    check_sound(storage)


def test_inline_is_about_all_small_blocks_of_a_publication_together(storage: LocalStorage) -> None:
    publish_blocks(storage, bytes(65_536))
    assert files_of(storage) == set()
    publish_blocks(storage, os.urandom(32_768), os.urandom(32_769))
    assert len(files_of(storage)) == 1


def test_what_is_known_does_not_count_and_is_not_written_again(storage: LocalStorage) -> None:
    blocks = small_blocks(500)
    publish_blocks(storage, *blocks)
    before = files_of(storage)
    with storage.publish() as publication:
        for block in [*blocks, b"new"]:
            publication.put(*raw(block))
        assert publication.commit() == 3
    assert files_of(storage) == before
    assert rows_of(storage, "SELECT count(*) FROM block WHERE data IS NOT NULL") == [(1,)]


def test_a_file_is_an_object_under_its_root_s_name(storage: LocalStorage, directory: Path) -> None:
    data = os.urandom(5000)
    root = publish_file(storage, data)
    [name] = files_of(storage)
    assert name.startswith(f"files/{root.multihash[-1]:02x}/{multihash_text(root.multihash)}.")
    path = storage.file_path(root)
    assert path == directory / name
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o444
    assert not leftovers(directory)
    rows = rows_of(storage, "SELECT offset, length, form FROM block WHERE place IS NOT NULL ORDER BY offset")
    assert rows == [(start, 1000, 0) for start in range(0, 5000, 1000)]


def test_there_is_no_path_for_what_is_not_one_file(storage: LocalStorage) -> None:
    [cid] = publish_blocks(storage, b"small")
    assert storage.file_path(cid) is None
    assert storage.file_path(CID.of(b"unknown")) is None


def test_a_file_that_is_known_leaves_no_second_object(storage: LocalStorage, directory: Path) -> None:
    root = publish_file(storage, b"x" * 5000)
    before = files_of(storage)
    assert publish_file(storage, b"x" * 5000) == root
    assert files_of(storage) == before
    assert not leftovers(directory)


def test_a_file_known_as_blocks_still_becomes_an_object(storage: LocalStorage) -> None:
    data = os.urandom(200_000)
    publish_blocks(storage, *(data[start : start + 1000] for start in range(0, len(data), 1000)))
    with storage.publish() as publication:
        assert put_file(publication, data) is not None
        publication.commit()
    root = publish_file(storage, data)
    path = storage.file_path(root)
    assert path is not None
    assert path.read_bytes() == data
    # The pack holds nothing now that the object does not hold: gc drops it.
    assert len(files_of(storage)) == 2
    for pin in list(storage.pins.list()):
        if pin.cid != root:
            storage.pins.remove(pin.cid)
    storage.collect_garbage()
    assert files_of(storage) == {str(path.relative_to(storage.directory))}
    check_sound(storage)


def test_a_deleted_leaf_comes_back_with_the_file(storage: LocalStorage) -> None:
    data = os.urandom(5000)
    root = publish_file(storage, data)
    delete_block(storage, CID.of(data[:1000]))
    publish_file(storage, data)
    assert storage.blocks.get(CID.of(data[:1000])) == data[:1000]
    assert len(list(walk_blocks(storage.blocks, root))) == 6
    assert len(files_of(storage)) == 1


def test_without_its_root_s_block_a_file_has_no_path(storage: LocalStorage) -> None:
    root = publish_file(storage, b"x" * 5000)
    delete_block(storage, root)
    assert storage.file_path(root) is None
    publish_file(storage, b"x" * 5000)
    assert storage.file_path(root) is not None


def test_a_large_publication_is_committed_in_batches(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_writer, "ROWS_PER_TRANSACTION", 100)
    sizes: list[int] = []
    insert = index_rows._insert

    def count(connection: object, place: int | None, blocks: list[index_rows.NewBlock], moves_if: str) -> int:
        sizes.append(len(blocks))
        return insert(connection, place, blocks, moves_if)  # type: ignore[arg-type]

    monkeypatch.setattr(index_rows, "_insert", count)
    with storage.publish() as publication:
        root = put_file(publication, os.urandom(155_000), leaf_bytes=500)
        for block in small_blocks(333):
            publication.put(*raw(block))
        publication.commit(Changes(pins=[Pin(USER, root)]))
    assert max(sizes) <= 100
    assert sum(sizes) > 600
    check_sound(storage)


def test_a_superfluous_pack_is_dropped_at_once(storage: LocalStorage) -> None:
    blocks = small_blocks(600)
    with storage.publish() as first, storage.publish() as second:
        for publication in (first, second):
            for block in blocks:
                publication.put(*raw(block))
        first.commit()
        second.commit()
    assert len(files_of(storage)) == 1
    assert rows_of(storage, "SELECT count(*) FROM place") == [(1,)]


def test_the_log_is_emptied_when_it_has_grown(storage: LocalStorage, directory: Path) -> None:
    for number in range(150):
        publish_blocks(storage, os.urandom(60_000), owner=None)
        assert (directory / "store.db-wal").stat().st_size < 6 << 20, number
    check_sound(storage)


def test_ten_thousand_small_files_need_few_commits(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"commit": 0, "sync": 0}
    disk = type(storage._context.disk)
    for name in calls:
        original = getattr(disk, name)

        def counted(self: object, *args: object, name: str = name, original: object = original) -> object:
            calls[name] += 1
            return original(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(disk, name, counted)
    with storage.publish() as publication:
        for block in small_blocks(10_000):
            publication.put(*raw(block))
        publication.commit()
    assert calls["commit"] <= 3
    assert calls["sync"] <= 3
