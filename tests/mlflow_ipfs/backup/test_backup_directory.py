"""The directory of a backup: what may be one, what is in it, and who uses the copy meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.backup.backing_up import make_backup
from mlflow_ipfs.backup.database_copies import SqliteCopy
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import ConflictError, PolicyError, StoreBusyError, StoreFormatError
from support.backup_sites import KilledError, MortalDisk, Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_directory_that_holds_something_else_is_no_place_for_a_backup(site: Site) -> None:
    site.advance(1)
    (site.directory / "backup").mkdir()
    (site.directory / "backup/mine").write_text("mine")
    with pytest.raises(ConflictError, match="contains files that are not part of a backup"):
        site.back_up()
    assert [path.name for path in (site.directory / "backup").iterdir()] == ["mine"]
    (site.directory / "backup/mine").rename(site.directory / "backup/lost+found")
    assert site.back_up() == 1, "a fresh disk has that"


@pytest.mark.parametrize("place", [".", "store", "store/backup/of/it", ".."])
def test_a_backup_and_what_it_is_of_never_lie_in_each_other(site: Site, place: str) -> None:
    site.advance(1)
    with pytest.raises(PolicyError, match="overlap: name a separate directory"):
        site.back_up(to=place)
    assert site.storage.scrub().problems == ()


def test_a_database_inside_the_backup_is_refused(site: Site) -> None:
    site.advance(1)
    site.back_up()
    url = sqlalchemy.make_url(f"sqlite:///{site.directory}/backup/mlflow.db")
    with pytest.raises(PolicyError, match="is inside the backup directory"):
        make_backup(ContentStore(site.storage), site.directory / "backup", url, timeout_seconds=1)


def test_the_backup_of_another_store_is_not_written_over(site: Site, tmp_path: Path) -> None:
    site.advance(1)
    site.back_up()
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    with pytest.raises(ConflictError, match="of another store"):
        other.back_up(to=str(tmp_path / "backup"))
    other.storage.close()
    assert site.restore("restored") == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "store_id": 3, "database": null}', '{"format": 2}'])
def test_a_manifest_that_says_nothing_useful_is_refused(site: Site, text: str) -> None:
    site.advance(1)
    site.back_up()
    (site.directory / "backup/backup.json").write_text(text)
    attempts: list[Callable[[], object]] = [site.back_up, lambda: site.restore("restored")]
    for work in attempts:
        with pytest.raises(StoreFormatError, match=r"backup\.json"):
            work()


def test_a_manifest_cannot_name_any_file(site: Site) -> None:
    site.advance(1)
    site.back_up()
    path = site.directory / "backup/backup.json"
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
    with pytest.raises(PolicyError, match="remove it"):
        site.back_up()
    assert list(elsewhere.iterdir()) == []


def test_a_copy_that_somebody_has_used_as_a_store_is_replaced_whole(site: Site) -> None:
    """The log that SQLite keeps beside the index must not be applied to the next index."""
    site.advance(1)
    site.back_up()
    log = site.directory / "backup/store/store.db-wal"
    with closing(sqlite3.connect(site.directory / "backup/store/store.db")) as connection:
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
    copy, decision = site.directory / "backup/store", site.directory / "backup/next/backup.json"
    for steps in range(1000):
        with suppress(KilledError):
            site.back_up(disk=MortalDisk(steps))
        if decision.exists():
            break
    before = (copy / "store.db").stat().st_ino
    with open_local_storage(copy, create=False) as reader:
        reader._context.session.draft()
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
    copy_after_snapshot = SqliteCopy.copy_after_snapshot
    with ExitStack() as readers:

        def open_copy(copy: SqliteCopy) -> None:
            copy_after_snapshot(copy)
            reader = readers.enter_context(open_local_storage(site.directory / "backup/store", create=False))
            reader._context.session.draft()

        monkeypatch.setattr(SqliteCopy, "copy_after_snapshot", open_copy)
        with pytest.raises(StoreBusyError, match="in use as a store"):
            site.back_up()
        assert not (site.directory / "backup/next").exists()
    monkeypatch.undo()
    assert site.restore("restored") == 1, "the former backup is whole"
    assert site.back_up() == 0, "what was copied is there"
    assert site.restore("last") == 2
