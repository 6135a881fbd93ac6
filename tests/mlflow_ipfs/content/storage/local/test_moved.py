"""A store that goes away, or becomes another one, while a program has it open; and parts that somebody cleared away."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import IntegrityError, StoreFormatError
from support.storages import publish_blocks, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


def replace_store(directory: Path) -> Path:
    """Move a store away and make another one in its place. Returns where the first one is now."""
    moved = directory.with_name("moved")
    directory.rename(moved)
    open_local_storage(directory).close()
    return moved


def test_nothing_is_written_to_a_store_that_was_replaced(storage: LocalStorage, directory: Path) -> None:
    publish_blocks(storage, b"before")
    replace_store(directory)
    with pytest.raises(StoreFormatError, match="moved, deleted or replaced"):
        publish_blocks(storage, b"acknowledged, and then lost")
    with pytest.raises(StoreFormatError, match="moved, deleted or replaced"):
        publish_file(storage, b"x" * 5000)


def test_a_store_that_went_away_for_a_while_takes_no_harm(storage: LocalStorage, directory: Path) -> None:
    root = publish_file(storage, b"x" * 5000)
    moved = replace_store(directory)
    with pytest.raises(IntegrityError):
        storage.file_path(root)  # its file is not there; but that is no reason to set it aside
    shutil.rmtree(directory)
    moved.rename(directory)
    path = storage.file_path(root)
    assert path is not None
    assert path.read_bytes() == b"x" * 5000
    publish_blocks(storage, b"back again")


def test_a_store_that_was_moved_says_so(storage: LocalStorage, directory: Path) -> None:
    directory.rename(directory.with_name("moved"))
    with pytest.raises(StoreFormatError, match="moved or deleted"):
        publish_blocks(storage, b"in vain")
    storage._context.database._idle.clear()  # the next reader needs a new connection
    with pytest.raises(StoreFormatError, match="moved, deleted or replaced"):
        list(storage.pins.list())


def test_directories_of_which_nothing_lasts_may_be_cleared_away(directory: Path) -> None:
    open_local_storage(directory).close()
    for name in ("tmp", "views", "sessions", "quarantine"):
        shutil.rmtree(directory / name)
    with open_local_storage(directory) as storage:
        publish_file(storage, b"x" * 5000)


def test_content_whose_files_are_gone_is_healed_by_adding_it_again(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, b"x" * 5000)
    shutil.rmtree(directory / "files")
    with open_local_storage(directory) as storage:
        assert publish_file(storage, b"x" * 5000) == root
        path = storage.file_path(root)
        assert path is not None
        assert path.read_bytes() == b"x" * 5000


def test_files_without_an_index_are_not_taken_for_an_unfinished_store(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        publish_file(storage, b"x" * 5000)
    (directory / "store.db").unlink()
    (directory / "format.json").unlink()
    with pytest.raises(StoreFormatError, match="lost its index"):
        open_local_storage(directory)
    assert list((directory / "files").glob("*/*"))


def test_gc_steps_over_what_is_not_the_stores(storage: LocalStorage, directory: Path) -> None:
    (directory / "files/zz/directory").mkdir(parents=True)
    (directory / "files/zz/link").symlink_to("nowhere")
    (directory / "files/zz/stray").write_bytes(b"123")
    assert storage.collect_garbage().freed_bytes == 3
    assert sorted(path.name for path in (directory / "files/zz").iterdir()) == ["directory", "link"]


def test_a_lock_file_that_was_removed_is_not_made_anew(storage: LocalStorage, directory: Path) -> None:
    (directory / "publish.lock").unlink()
    with pytest.raises(StoreFormatError, match="empty file of that name"):
        publish_blocks(storage, b"in vain")
    (directory / "publish.lock").touch()
    publish_blocks(storage, b"works")
