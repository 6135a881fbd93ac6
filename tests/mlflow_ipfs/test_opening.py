from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015
from mlflow_ipfs.errors import StoreFormatError
from mlflow_ipfs.opening import close_shared_stores, open_store, shared_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.unprivileged import OrdinaryUser


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_shared_stores()


def test_the_store_is_the_one_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/s")
    with open_store() as store:
        cid = store.add_bytes(b"hello")
    assert (tmp_path / "s/format.json").exists()
    with open_store(Settings(store=tmp_path / "s")) as store:
        assert store.open(cid).read() == b"hello"


def test_settings_decide_the_cids(tmp_path: Path) -> None:
    with open_store(Settings(store=tmp_path / "s", profile=UNIXFS_V0_2015)) as store:
        assert str(store.add_bytes(b"hello")).startswith("Qm")


def test_a_store_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError):
        open_store(Settings(store=tmp_path / "absent"), create=False)
    assert not (tmp_path / "absent").exists()


def test_threads_of_a_process_share_one_store(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "s")
    found = []
    threads = [threading.Thread(target=lambda: found.append(shared_store(settings))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len({id(store) for store in found}) == 1


def test_other_settings_are_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = []
    for name in ("a", "b", "a"):
        monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/{name}")
        stores.append(shared_store())
    assert stores[0] is stores[2]
    assert stores[0] is not stores[1]


def test_a_forked_child_opens_its_own(tmp_path: Path, ordinary_user: OrdinaryUser) -> None:
    del tmp_path
    settings = Settings(store=ordinary_user.directory / "s")
    here = ordinary_user.run(lambda: str(open_store(settings).add_bytes(b"from another process")))
    if os.geteuid() == 0:
        os.chown(ordinary_user.directory, 0, 0)  # root refuses another user's store, and so does the test
    assert here.startswith("baf")


def test_a_fork_in_the_middle_of_use(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "s")
    parent = shared_store(settings)
    cid = parent.add_bytes(b"parent")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store = shared_store(settings)
            ok = store is not parent and store.open(cid).read() == b"parent"
            os.write(writer, bytes(store.add_bytes(b"child")) if ok else b"wrong")
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 100)
    os.close(reader)
    os.waitpid(child, 0)
    assert answer == bytes(parent.add_bytes(b"child"))
    assert shared_store(settings) is parent
