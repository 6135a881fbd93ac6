"""Backups of a database and a store: both of one moment, whole at every step, and never over anything."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.binding.backups import make_backup, restore_backup
from mlflow_ipfs.binding.database_copies import SqliteCopy, find_database
from mlflow_ipfs.content.blockstore.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    ConflictError,
    NotFoundError,
    PolicyError,
    SettingsError,
    StoreBusyError,
    StoreFormatError,
)
from support.storages import SteppedDisk, check_sound, publish_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.system.disk import Disk

TIMEOUT_SECONDS = 1.0
LONG_SECONDS = 60.0


class Site:
    """A store and a database that tell the same number: in a ref's version, and in a row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "mlflow.db"
        self.storage = open_local_storage(folder / "store", timeout_seconds=TIMEOUT_SECONDS)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE experiments (number INTEGER)")

    @property
    def url(self) -> URL:
        return sqlalchemy.make_url(f"sqlite:///{self.database}")

    def advance(self, number: int) -> None:
        """Let both tell the next number, with content that only this number has."""
        cid = publish_file(self.storage, os.urandom(20_000), owner=f"number-{number}")
        self.storage.refs.set("number", cid, expected_version=number - 1)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("DELETE FROM experiments")
            connection.execute("INSERT INTO experiments VALUES (?)", (number,))

    def back_up(self, *, disk: Disk | None = None, to: str = "backup") -> int:
        """Returns how many files were copied."""
        store = ContentStore(self.storage)
        _, report = make_backup(store, self.folder / to, self.url, timeout_seconds=TIMEOUT_SECONDS, disk=disk)
        assert report.problems == ()
        return report.copied_files

    def restore(self, name: str, *, disk: Disk | None = None) -> int:
        """Restore to a folder. Returns the number that both tell, after a look at all bytes."""
        target = self.folder / name
        url = sqlalchemy.make_url(f"sqlite:///{target}/mlflow.db")
        _, report = restore_backup(self.folder / "backup", target / "store", url, disk=disk)
        assert report is None or report.problems == ()
        return told_by(target)


def told_by(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        [(in_database,)] = connection.execute("SELECT number FROM experiments").fetchall()
    with open_local_storage(folder / "store", create=False) as storage:
        check_sound(storage)
        ref = storage.refs.get("number")
        assert storage.file_path(ref.cid) is not None
        assert ref.version == in_database
        assert storage.scrub().problems == ()
    assert not (folder / "store" / "restoring").exists()
    return int(in_database)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.storage.close()


class KilledError(BaseException):
    """What stands for a kill: nobody catches it."""


class MortalDisk(SteppedDisk):
    """Dies before the n-th step, and does nothing from then on: not even tidy up."""

    def __init__(self, steps: int) -> None:
        super().__init__(self._take)
        self.left = steps

    def _take(self, step: str) -> None:
        del step
        self.left -= 1
        if self.left < 0:
            raise KilledError


def test_a_backup_is_restored_elsewhere_and_changes_nothing_in_it(site: Site) -> None:
    site.advance(1)
    assert site.back_up() == 1
    before = {path: path.stat().st_mtime_ns for path in (site.folder / "backup").rglob("*")}
    assert site.restore("restored") == 1
    assert {path: path.stat().st_mtime_ns for path in (site.folder / "backup").rglob("*")} == before
    with open_local_storage(site.folder / "restored/store") as storage:
        assert storage.store_id == site.storage.store_id


def test_the_next_backup_copies_what_is_new_and_says_so(site: Site) -> None:
    site.advance(1)
    site.back_up()
    site.advance(2)
    assert site.back_up() == 1
    assert site.back_up() == 0
    manifest = json.loads((site.folder / "backup/backup.json").read_bytes())
    assert (manifest["complete"], manifest["files"], manifest["database"]) == (True, 2, "mlflow.db")
    assert site.restore("restored") == 2
    assert sorted(path.name for path in (site.folder / "backup").iterdir()) == [
        "backup.json", "backup.lock", "mlflow.db", "store",
    ]  # fmt: skip


def test_a_backup_killed_at_any_step_leaves_a_whole_one(site: Site) -> None:
    """Never the database of one moment and the store of another; and the next one ends well."""
    site.advance(1)
    site.back_up()
    site.advance(2)
    seen = set()
    for steps in range(1000):
        try:
            site.back_up(disk=MortalDisk(steps))
        except KilledError:
            seen.add(site.restore(f"restored-{steps}"))
        else:
            break
    assert seen == {1, 2}, steps
    assert site.back_up() == 0
    assert site.restore("last") == 2


def test_a_first_backup_that_was_killed_is_refused_until_it_is_complete(site: Site) -> None:
    site.advance(1)
    refused = 0
    for steps in range(1000):
        try:
            site.back_up(disk=MortalDisk(steps))
        except KilledError:
            try:
                assert site.restore(f"restored-{steps}") == 1
            except (NotFoundError, StoreFormatError):
                refused += 1
                assert not (site.folder / f"restored-{steps}/store").exists()
        else:
            break
    assert refused > 10
    assert site.restore("last") == 1


def test_a_restore_killed_at_any_step_goes_on(site: Site) -> None:
    site.advance(1)
    site.back_up()
    for steps in range(1000):
        try:
            site.restore(f"restored-{steps}", disk=MortalDisk(steps))
        except KilledError:
            assert site.restore(f"restored-{steps}") == 1
        else:
            break
    assert steps > 15


def test_a_database_that_a_broken_off_restore_left_out_is_restored_by_the_next(site: Site) -> None:
    site.advance(1)
    site.back_up()
    target = site.folder / "there"
    restore_backup(site.folder / "backup", target / "store", None)
    (target / "store/restoring").mkdir()  # as if it had been killed before it tidied up
    (target / "store/restoring/store_id").write_text(site.storage.store_id)
    assert site.restore("there") == 1


def test_nothing_is_restored_over_a_store_or_a_database(site: Site) -> None:
    site.advance(1)
    site.back_up()
    taken = site.folder / "taken"
    (taken / "store").mkdir(parents=True)
    (taken / "store/mine").write_text("mine")
    with pytest.raises(ConflictError, match="store is there already"):
        site.restore("taken")
    assert [path.name for path in taken.rglob("*")] == ["store", "mine"]
    (taken / "store/mine").unlink()
    (taken / "mlflow.db").write_text("mine")
    with pytest.raises(ConflictError, match="mlflow.db is there already"):
        site.restore("taken")
    assert (taken / "mlflow.db").read_text() == "mine"
    (taken / "mlflow.db").unlink()
    assert site.restore("taken") == 1
    with pytest.raises(ConflictError):
        site.restore("taken")


@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
def test_nothing_is_restored_beside_the_log_of_a_lost_database(site: Site, suffix: str) -> None:
    """SQLite would replay it into the restored file, also into one that an earlier attempt has put there."""
    site.advance(1)
    site.back_up()
    log = site.folder / f"there/mlflow.db{suffix}"
    log.parent.mkdir()
    log.write_bytes(b"of another database")
    with pytest.raises(ConflictError, match=f"mlflow.db{suffix} .* move it away"):
        site.restore("there")
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    shutil.copyfile(site.folder / "backup/mlflow.db", log.parent / "mlflow.db")
    with pytest.raises(ConflictError, match="move it away"):
        site.restore("there")
    log.unlink()
    assert site.restore("there") == 1


def test_a_folder_that_holds_something_else_is_no_place_for_a_backup(site: Site) -> None:
    site.advance(1)
    (site.folder / "backup").mkdir()
    (site.folder / "backup/mine").write_text("mine")
    with pytest.raises(PolicyError, match="not empty, and no backup"):
        site.back_up()
    assert [path.name for path in (site.folder / "backup").iterdir()] == ["mine"]
    (site.folder / "backup/mine").rename(site.folder / "backup/lost+found")
    assert site.back_up() == 1, "a fresh disk has that"


@pytest.mark.parametrize("place", [".", "store", "store/backup/of/it", ".."])
def test_a_backup_and_what_it_is_of_never_lie_in_each_other(site: Site, place: str) -> None:
    site.advance(1)
    with pytest.raises(PolicyError, match="lie in each other"):
        site.back_up(to=place)
    assert site.storage.scrub().problems == ()


def test_a_database_inside_the_backup_is_refused(site: Site) -> None:
    site.advance(1)
    site.back_up()
    url = sqlalchemy.make_url(f"sqlite:///{site.folder}/backup/mlflow.db")
    with pytest.raises(PolicyError, match="lies in"):
        make_backup(ContentStore(site.storage), site.folder / "backup", url, timeout_seconds=1)


def test_the_backup_of_another_store_is_not_written_over(site: Site, tmp_path: Path) -> None:
    site.advance(1)
    site.back_up()
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    with pytest.raises(PolicyError, match="of another store"):
        other.back_up(to=str(tmp_path / "backup"))
    other.storage.close()
    assert site.restore("restored") == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "store_id": 3, "database": null}', '{"format": 2}'])
def test_a_manifest_that_says_nothing_useful_is_refused(site: Site, text: str) -> None:
    site.advance(1)
    site.back_up()
    (site.folder / "backup/backup.json").write_text(text)
    attempts: list[Callable[[], object]] = [site.back_up, lambda: site.restore("restored")]
    for work in attempts:
        with pytest.raises(StoreFormatError, match=r"backup\.json"):
            work()


def test_a_manifest_cannot_name_any_file(site: Site) -> None:
    site.advance(1)
    site.back_up()
    path = site.folder / "backup/backup.json"
    path.write_text(path.read_text().replace("mlflow.db", "../mlflow.db"))
    with pytest.raises(StoreFormatError):
        site.restore("restored")


@pytest.mark.parametrize("name", ["backup.lock", "store", "next", "store/files"])
def test_nothing_is_written_through_a_link_in_the_backup(site: Site, tmp_path: Path, name: str) -> None:
    site.advance(1)
    site.back_up()
    site.advance(2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / "backup" / name
    if place.exists():
        place.rename(tmp_path / "away")
    place.symlink_to(elsewhere / "made" if name.endswith("lock") else elsewhere)
    with pytest.raises(PolicyError, match="Remove it"):
        site.back_up()
    assert list(elsewhere.iterdir()) == []


def test_a_writer_in_mlflows_database_is_waited_for_but_nobody_waits_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.advance(1)
    has_begun = threading.Event()
    begin = SqliteCopy.begin

    def tell_and_begin(copy: SqliteCopy) -> None:
        has_begun.set()
        begin(copy)

    monkeypatch.setattr(SqliteCopy, "begin", tell_and_begin)
    with (
        ThreadPoolExecutor(1) as pool,
        open_local_storage(site.folder / "store") as other,
        closing(sqlite3.connect(site.database, isolation_level=None)) as writer,
    ):
        writer.execute("BEGIN EXCLUSIVE")
        site.storage.close()
        site.storage = open_local_storage(site.folder / "store", timeout_seconds=LONG_SECONDS)
        backup = pool.submit(site.back_up)
        assert has_begun.wait(LONG_SECONDS), "now the backup holds the store's lock, and waits for MLflow's"
        publish_file(other, b"published while MLflow's database is locked", owner="other")
        assert not backup.done()
        writer.execute("COMMIT")
        assert backup.result() > 0
    assert site.restore("restored") == 1


def test_a_database_that_stays_locked_is_an_error_that_names_it(site: Site) -> None:
    site.advance(1)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusyError, match=r"mlflow\.db locked"):
            site.back_up()
    assert site.back_up() == 1


def test_a_database_with_a_log_of_its_own_is_copied_with_it(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("SELECT * FROM experiments").fetchall()  # while it is open the log stays
        site.advance(1)
        assert (site.folder / "mlflow.db-wal").stat().st_size > 0
        site.back_up()
    assert site.restore("restored") == 1


def test_a_copy_that_somebody_has_used_as_a_store_is_replaced_whole(site: Site) -> None:
    """The log that SQLite keeps beside the index must not be applied to the next index."""
    site.advance(1)
    site.back_up()
    log = site.folder / "backup/store/store.db-wal"
    with closing(sqlite3.connect(site.folder / "backup/store/store.db")) as connection:
        connection.execute("DELETE FROM ref")
        connection.commit()
        left = log.read_bytes()
    log.write_bytes(left)
    site.advance(2)
    site.back_up()
    assert site.restore("restored") == 2


def test_a_copy_that_somebody_has_open_is_not_replaced_by_a_backup_decided_before(site: Site) -> None:
    site.advance(1)
    site.back_up()
    site.advance(2)
    copy, decision = site.folder / "backup/store", site.folder / "backup/next/backup.json"
    for steps in range(1000):
        with suppress(KilledError):
            site.back_up(disk=MortalDisk(steps))
        if decision.exists():
            break
    before = (copy / "store.db").stat().st_ino
    with open_local_storage(copy, create=False) as reader:
        reader._parts.session.draft()
        with pytest.raises(StoreBusyError, match="in use as a store"):
            site.back_up()
        assert reader.refs.get("number").version == 1
    assert decision.exists()
    assert (copy / "store.db").stat().st_ino == before
    assert site.restore("restored") == 2
    assert site.back_up() == 0
    assert site.restore("last") == 2


def test_a_copy_that_somebody_opened_during_the_backup_is_not_replaced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.advance(1)
    site.back_up()
    site.advance(2)
    copy_at_leisure = SqliteCopy.copy_at_leisure
    with ExitStack() as readers:

        def open_copy(copy: SqliteCopy) -> None:
            copy_at_leisure(copy)
            reader = readers.enter_context(open_local_storage(site.folder / "backup/store", create=False))
            reader._parts.session.draft()

        monkeypatch.setattr(SqliteCopy, "copy_at_leisure", open_copy)
        with pytest.raises(StoreBusyError, match="in use as a store"):
            site.back_up()
        assert not (site.folder / "backup/next").exists()
    monkeypatch.undo()
    assert site.restore("restored") == 1, "the former backup is whole"
    assert site.back_up() == 0, "what was copied is there"
    assert site.restore("last") == 2


def test_a_store_alone_is_backed_up_and_restored(site: Site) -> None:
    site.advance(1)
    backup, target = site.folder / "backup", site.folder / "restored"
    site.back_up()
    make_backup(ContentStore(site.storage), backup, None, timeout_seconds=1)
    assert not (backup / "mlflow.db").exists(), "it would be of another moment"
    with pytest.raises(ConflictError, match="has no database"):
        site.restore("restored")
    restore_backup(backup, target, None)
    with open_local_storage(target, create=False) as storage:
        check_sound(storage)


@pytest.mark.parametrize(
    ("named", "environ", "found"),
    [
        ("ipfs+sqlite:////a.db", {}, "sqlite:////a.db"),
        ("postgresql+psycopg2://u:p@h/d", {"MLFLOW_TRACKING_URI": "http://x"}, "postgresql+psycopg2://u:p@h/d"),
        (None, {"MLFLOW_BACKEND_STORE_URI": "sqlite:////b.db", "MLFLOW_TRACKING_URI": "x"}, "sqlite:////b.db"),
        (None, {"MLFLOW_TRACKING_URI": "ipfs+sqlite:////c.db"}, "sqlite:////c.db"),
    ],
)
def test_the_database_is_the_one_that_mlflow_uses(named: str | None, environ: dict[str, str], found: str) -> None:
    assert find_database(named, environ).render_as_string(hide_password=False) == found


@pytest.mark.parametrize(
    ("named", "environ"),
    [
        (None, {}),
        (None, {"MLFLOW_TRACKING_URI": "http://user:secret@server"}),
        (None, {"MLFLOW_TRACKING_URI": "databricks"}),
        ("mysql://user:secret@h/d", {}),
        ("./mlruns", {}),
    ],
)
def test_what_is_no_database_is_refused_without_showing_a_password(named: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--store-only") as caught:
        find_database(named, environ)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_mlflows_is_refused(site: Site) -> None:
    site.database.unlink()
    with pytest.raises(NotFoundError):
        site.back_up()
    site.database.write_bytes(b"")
    with pytest.raises(SettingsError, match="no tables of MLflow"):
        site.back_up()
