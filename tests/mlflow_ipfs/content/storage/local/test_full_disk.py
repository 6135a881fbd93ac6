"""A full disk: a clear error, no residue, and reading and gc go on."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.index.layout import RESERVE_BYTES
from mlflow_ipfs.errors import StoreFullError
from support.mounted import mounted_tmpfs
from support.storages import (
    FullDisk,
    check_sound,
    files_of,
    leftovers,
    multihashes,
    publish_blocks,
    publish_file,
    put_file,
    raw,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


def publish(storage: LocalStorage) -> None:
    with storage.publish() as publication:
        roots = [put_file(publication, bytes((number,)) * 5000) for number in range(1, 4)]
        for number in range(100):
            publication.put(*raw(number.to_bytes(4, "big") * 250))
        publication.commit(Changes(pins=[Pin("new", root) for root in roots]))


def try_to_publish(storage: LocalStorage) -> str | None:
    try:
        publish(storage)
    except StoreFullError as error:
        return str(error)
    return None


def test_no_room_at_any_step_keeps_nothing(directory: Path) -> None:
    disk = FullDisk()
    with open_local_storage(directory, disk=disk) as storage:
        kept = publish_file(storage, b"kept" * 1000)
        files, blocks = files_of(storage), set(multihashes(storage))
        for room_for in range(200):
            disk.room_for, disk.refused = room_for, False
            message = try_to_publish(storage)
            if message is None:
                break
            assert disk.refused
            assert re.search(rf"{re.escape(str(directory))} is full \(\d+ bytes free\)", message)
            assert files_of(storage) == files
            assert not leftovers(directory)
            assert set(multihashes(storage)) == blocks
            assert [pin.cid for pin in storage.pins.list()] == [kept]
            assert open_unixfs(storage.blocks, kept).read() == b"kept" * 1000
        assert room_for > 15
        assert not disk.refused
        check_sound(storage)
        assert len(list(storage.pins.list())) == 4


def test_no_room_for_a_pin_or_a_view(directory: Path) -> None:
    disk = FullDisk()
    with open_local_storage(directory, disk=disk) as storage:
        [cid] = publish_blocks(storage, b"kept", owner=None)
        disk.room_for = 0
        with pytest.raises(StoreFullError):
            storage.pins.add(Pin("me", cid))
        with pytest.raises(StoreFullError):
            storage.make_view_directory()
        disk.room_for = 1_000_000
        assert list(storage.pins.list()) == []
        storage.pins.add(Pin("me", cid))


def test_no_room_for_a_copy_leaves_none(directory: Path, tmp_path: Path) -> None:
    disk = FullDisk()
    with open_local_storage(directory, disk=disk, view_mode="copy") as storage:
        root = publish_file(storage, b"kept" * 1000)
        path = storage.file_path(root)
        assert path is not None
        disk.room_for = 1  # for the call, then none for the file
        with pytest.raises(StoreFullError):
            storage.link_file(path, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_tmpfs(tmp_path / "disk", size_bytes=24 << 20) as disk:
        yield disk.directory


def fill(disk: Path) -> None:
    """Take every byte that is left."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    with open_local_storage(small_disk / "store") as storage:
        kept = publish_file(storage, b"kept" * 100_000, leaf_bytes=100_000)
        files = files_of(storage)
        with pytest.raises(StoreFullError, match="bytes free"):
            publish_file(storage, os.urandom(30 << 20), leaf_bytes=1 << 20)
        assert files_of(storage) == files
        assert not leftovers(storage.directory)
        publish_blocks(storage, b"there is room again")
        check_sound(storage)
        assert open_unixfs(storage.blocks, kept).read() == b"kept" * 100_000


def test_reading_and_gc_on_a_full_disk(small_disk: Path) -> None:
    with open_local_storage(small_disk / "store") as storage:
        kept = publish_file(storage, b"kept" * 1000)
        publish_file(storage, os.urandom(5 << 20), leaf_bytes=1 << 20, owner=None)
        for number in range(300):
            publish_blocks(storage, os.urandom(200), owner=None if number else "me")
        assert (small_disk / "store" / "reserve").stat().st_size == RESERVE_BYTES
    fill(small_disk)
    with open_local_storage(small_disk / "store") as storage:
        assert open_unixfs(storage.blocks, kept).read() == b"kept" * 1000
        with pytest.raises(StoreFullError):
            publish_file(storage, os.urandom(RESERVE_BYTES + 1), leaf_bytes=1 << 20)
        report = storage.collect_garbage()
        assert report.freed_bytes > 5 << 20
        assert open_unixfs(storage.blocks, kept).read() == b"kept" * 1000
        publish_file(storage, os.urandom(1 << 20), leaf_bytes=1 << 20)
        check_sound(storage)


def test_the_reserve_is_made_anew_when_there_is_room(small_disk: Path) -> None:
    directory = small_disk / "store"
    open_local_storage(directory).close()
    (directory / "reserve").unlink()
    (small_disk / "filler").write_bytes(bytes(12 << 20))
    open_local_storage(directory).close()
    assert not (directory / "reserve").exists(), "with little room left it is left to its user"
    (small_disk / "filler").unlink()
    open_local_storage(directory).close()
    assert (directory / "reserve").exists()


def test_no_room_to_make_a_store(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", size_bytes=64 << 10) as disk, pytest.raises(StoreFullError, match="full"):
        open_local_storage(disk.directory / "store")
