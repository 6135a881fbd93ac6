"""What only an ordinary user meets: folders and files without permission."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blockstore.local import open_local_storage
from support.storages import publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from support.unprivileged import OrdinaryUser


def test_a_store_that_cannot_be_written_to_is_refused(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.folder / "store"

    def work() -> None:
        open_local_storage(store).close()
        store.chmod(0o500)
        open_local_storage(store)

    with pytest.raises(PermissionError, match="another user"):
        ordinary_user.run(work)


def test_a_folder_that_cannot_be_made(ordinary_user: OrdinaryUser) -> None:
    def work() -> None:
        ordinary_user.folder.chmod(0o500)
        open_local_storage(ordinary_user.folder / "store")

    with pytest.raises(PermissionError):
        ordinary_user.run(work)


def test_an_unreadable_object_is_no_damage(ordinary_user: OrdinaryUser) -> None:
    def work(folder: Path) -> bool:
        with open_local_storage(folder) as storage:
            root = publish_file(storage, b"x" * 5000)
            path = storage.file_path(root)
            assert path is not None
            path.chmod(0)
            os.utime(path, ns=(1, 1))
            try:
                storage.file_path(root)
            except PermissionError:
                path.chmod(0o444)
                return storage.file_path(root) == path
        return False

    assert ordinary_user.run(work, ordinary_user.folder / "store")


def test_objects_cannot_be_written_to(ordinary_user: OrdinaryUser) -> None:
    def work(folder: Path) -> None:
        with open_local_storage(folder) as storage:
            path = storage.file_path(publish_file(storage, b"x" * 5000))
            assert path is not None
            path.open("r+b")

    with pytest.raises(PermissionError):
        ordinary_user.run(work, ordinary_user.folder / "store")
