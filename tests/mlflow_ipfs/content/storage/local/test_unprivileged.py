"""What only an ordinary user meets: directories and files without permission."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import USER
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import PolicyError
from support.storages import multihashes, publish_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.unprivileged import OrdinaryUser


def test_a_store_that_cannot_be_written_to_is_refused(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"

    def work() -> None:
        open_local_storage(store).close()
        store.chmod(0o500)
        open_local_storage(store)

    with pytest.raises(PolicyError, match=r"store \(.*mode 0500\): let its owner use it, `chmod u\+rwx"):
        ordinary_user.run(work)


def test_a_directory_that_cannot_be_made(ordinary_user: OrdinaryUser) -> None:
    def work() -> None:
        ordinary_user.directory.chmod(0o500)
        open_local_storage(ordinary_user.directory / "store")

    with pytest.raises(PolicyError, match=r"may not read or write .*mode 0500\)"):
        ordinary_user.run(work)


def test_an_unreadable_object_is_no_damage(ordinary_user: OrdinaryUser) -> None:
    def work(directory: Path) -> bool:
        with open_local_storage(directory) as storage:
            root = publish_file(storage, b"x" * 5000)
            path = storage.file_path(root)
            assert path is not None
            path.chmod(0)
            os.utime(path, ns=(1, 1))
            try:
                storage.file_path(root)
            except PolicyError:
                path.chmod(0o444)
                return storage.file_path(root) == path
        return False

    assert ordinary_user.run(work, ordinary_user.directory / "store")


def test_objects_cannot_be_written_to(ordinary_user: OrdinaryUser) -> None:
    def work(directory: Path) -> None:
        with open_local_storage(directory) as storage:
            path = storage.file_path(publish_file(storage, b"x" * 5000))
            assert path is not None
            path.open("r+b")

    with pytest.raises(PermissionError):
        ordinary_user.run(work, ordinary_user.directory / "store")


def read_all(storage: LocalStorage) -> None:
    for multihash in multihashes(storage):
        storage.blocks.get(CID(1, 0x55, multihash))


def read_many(storage: LocalStorage) -> None:
    list(storage.blocks.get_many([CID(1, 0x55, multihash) for multihash in multihashes(storage)]))


def publish(storage: LocalStorage) -> None:
    publish_file(storage, b"y" * 5000)


def collect(storage: LocalStorage) -> None:
    storage.pins.remove(next(iter(storage.pins.list())).cid, USER)
    storage.collect_garbage()


def hand_out(storage: LocalStorage) -> None:
    path = storage.file_path(next(iter(storage.pins.list())).cid)
    assert path is not None
    os.utime(path.parent, ns=(1, 1))


def scrub(storage: LocalStorage) -> None:
    storage.scrub()


def verify(storage: LocalStorage) -> None:
    ContentStore(storage).verify(next(iter(storage.pins.list())).cid)


def export(storage: LocalStorage) -> None:
    ContentStore(storage).view(next(iter(storage.pins.list())).cid, dst=storage.directory.parent / "out")


def view(storage: LocalStorage) -> None:
    ContentStore(storage).view(next(iter(storage.pins.list())).cid)


@pytest.mark.parametrize(
    ("name", "mode", "use"),
    [
        ("files/*/*", 0, export),
        ("files/*/*", 0, view),
        ("files/*", 0, read_all),
        ("files/*/*", 0, read_all),
        ("files/*/*", 0, read_many),
        ("files/*/*", 0, scrub),
        ("files/*/*", 0, verify),
        ("files/*", 0, hand_out),
        ("files", 0o500, publish),
        ("tmp/*", 0o500, publish),
        ("sessions", 0o500, publish),
        ("publish.lock", 0, publish),
        ("write.lock", 0, publish),
        ("gc.lock", 0, collect),
        ("files/*", 0o500, collect),
    ],
)
def test_what_this_user_may_not_use_is_named_with_the_remedy(
    ordinary_user: OrdinaryUser, name: str, mode: int, use: Callable[[LocalStorage], None]
) -> None:
    store = ordinary_user.directory / "store"

    def work() -> None:
        with open_local_storage(store) as storage:
            publish_file(storage, b"x" * 5000)
            (path,) = store.glob(name)
            bits = "u+rwx" if path.is_dir() else "u+r" if name == "files/*/*" else "u+rw"
            path.chmod(mode)
            with pytest.raises(PolicyError) as caught:
                use(storage)
            path.chmod(0o700)
            assert f"may not read or write {path} (owner " in str(caught.value)
            assert str(caught.value).endswith(f": let its owner use it, `chmod {bits} {path}`")

    ordinary_user.run(work)


@pytest.mark.parametrize("name", ["format.json", "store.db", "store.db-wal", "store.db-shm", "write.lock", "views"])
def test_a_store_with_something_that_this_user_may_not_use_says_so_when_it_is_opened(
    ordinary_user: OrdinaryUser, name: str
) -> None:
    store = ordinary_user.directory / "store"

    def work() -> None:
        with open_local_storage(store) as storage:
            publish_file(storage, b"x" * 5000)
            for kind in ("-wal", "-shm"):
                shutil.copy(f"{store}/store.db{kind}", f"{store}/kept{kind}")
        for kind in ("-wal", "-shm"):
            (store / f"kept{kind}").rename(store / f"store.db{kind}")
        (store / name).chmod(0)
        with pytest.raises(PolicyError, match=f"may not read or write {store / name} .*chmod"):
            publish_file(open_local_storage(store), b"y")

    ordinary_user.run(work)


def test_a_session_of_another_user_keeps_nobody_from_the_store(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"

    def work() -> bool:
        open_local_storage(store).close()
        (store / "sessions" / "foreign").touch(mode=0)
        with open_local_storage(store) as storage:
            publish_file(storage, b"x")
        return (store / "sessions" / "foreign").exists()

    assert ordinary_user.run(work)
