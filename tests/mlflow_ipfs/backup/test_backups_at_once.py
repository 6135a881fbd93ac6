"""Two backups into one directory, two restores into one place: the second waits, or says what is in its way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy

from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.backup.database_copies import SqliteRestore
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import ConflictError, MlflowIpfsError, StoreBusyError
from support.backup_sites import Site, recorded_number
from support.processes import fork_child, wait_until
from support.storages import SteppedDisk

pytestmark = pytest.mark.slow

LONG_SECONDS = 60.0
RACERS = 4


@pytest.fixture
def site(site: Site) -> Site:
    site.advance(1)
    return site


class HeldDisk(SteppedDisk):
    """Stops at its first step of a kind until it is let go."""

    def __init__(self, kind: str = "rename") -> None:
        super().__init__(self._wait)
        self.kind = kind
        self.has_stopped, self.may_go_on = threading.Event(), threading.Event()

    def _wait(self, step: str) -> None:
        if step == self.kind and not self.has_stopped.is_set():
            self.has_stopped.set()
            assert self.may_go_on.wait(LONG_SECONDS)


def test_the_second_backup_into_a_directory_names_what_is_in_its_way(site: Site) -> None:
    site.back_up()
    site.advance(2)
    disk = HeldDisk()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.back_up, disk=disk)
        try:
            assert disk.has_stopped.wait(LONG_SECONDS)
            with pytest.raises(StoreBusyError, match=f"backup is locked: process {os.getpid()} .* is making a backup"):
                site.back_up()
        finally:
            disk.may_go_on.set()
        assert first.result(LONG_SECONDS) == 1
    assert site.restore("there") == 2


def test_the_second_backup_waits_for_the_first(site: Site) -> None:
    disk = HeldDisk()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(site.back_up, disk=disk)
        assert disk.has_stopped.wait(LONG_SECONDS)
        store, directory = ContentStore(site.storage), site.directory / "backup"
        second = pool.submit(make_backup, store, directory, site.url, timeout_seconds=LONG_SECONDS)
        disk.may_go_on.set()
        assert first.result(LONG_SECONDS) == 1
        manifest, report = second.result(LONG_SECONDS)
    assert (manifest.complete, report.copied_files) == (True, 0)
    assert site.restore("there") == 1


@pytest.mark.parametrize("kind", ["create", "rename", "remove_tree"])
def test_the_second_restore_into_a_place_is_refused_and_changes_nothing(site: Site, kind: str) -> None:
    site.back_up()
    disk = HeldDisk(kind)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.restore, "there", disk=disk)
        try:
            assert disk.has_stopped.wait(LONG_SECONDS)
            before = sorted((site.directory / "there").rglob("*"))
            with pytest.raises(MlflowIpfsError, match="another process restores a backup into|already exists"):
                site.restore("there")
            assert sorted((site.directory / "there").rglob("*")) == before
        finally:
            disk.may_go_on.set()
        assert first.result(LONG_SECONDS) == 1
    with pytest.raises(ConflictError):
        site.restore("there")
    assert recorded_number(site.directory / "there") == 1


def test_two_stores_do_not_get_one_database(site: Site) -> None:
    """Of two backups that go to different stores, but to one database, the second is refused, whenever it comes."""
    site.back_up()
    site.advance(2)
    site.back_up(to="other")
    url = sqlalchemy.make_url(f"sqlite:///{site.directory}/one/mlflow.db")
    target = site.directory / "one/mlflow.db"
    second = SqliteRestore(target, site.directory / "other/mlflow.db", Disk())
    disk = HeldDisk("rename")
    first = SqliteRestore(target, site.directory / "backup/mlflow.db", disk)
    second.check()
    with ThreadPoolExecutor(2) as pool:
        restoring = pool.submit(first.restore)
        assert disk.has_stopped.wait(LONG_SECONDS), "the draft is written, and not yet in its place"
        other = pool.submit(second.restore)
        with pytest.raises(TimeoutError):
            other.result(0.2)
        disk.may_go_on.set()
        restoring.result(LONG_SECONDS)
        with pytest.raises(ConflictError, match="already exists"):
            other.result(LONG_SECONDS)
    with closing(sqlite3.connect(str(url.database))) as connection:
        assert connection.execute("SELECT number FROM experiments").fetchall() == [(1,)]
    assert os.listdir(site.directory / "one") == ["mlflow.db"]


def test_of_many_restores_at_once_one_comes_through(site: Site) -> None:
    site.back_up()
    start = multiprocessing.get_context("fork").Barrier(RACERS)

    def race() -> None:
        start.wait(LONG_SECONDS)
        url = sqlalchemy.make_url(f"sqlite:///{site.directory}/there/mlflow.db")
        try:
            restore_backup(site.directory / "backup", site.directory / "there/store", url)
        except (StoreBusyError, ConflictError):
            os._exit(7)

    children = [fork_child(race) for _ in range(RACERS)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] + [7] * (RACERS - 1)
    assert recorded_number(site.directory / "there") == 1


def test_who_is_killed_holds_nobody_up(site: Site) -> None:
    site.back_up()

    def restore_half() -> None:
        site.restore("there", disk=HeldDisk("rename"))

    child = fork_child(restore_half)
    try:
        drafts = site.directory / "there/store/restoring"
        wait_until(drafts.exists, timeout_seconds=LONG_SECONDS, what="a restore began")
        with pytest.raises(StoreBusyError):
            site.restore("there")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert site.restore("there") == 1
