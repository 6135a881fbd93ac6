"""Backups of a database and a store: both of one moment, and restored elsewhere, never over anything."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import ConflictError
from support.storages import check_sound

if TYPE_CHECKING:
    from support.backup_sites import Site


def test_a_backup_is_restored_elsewhere_and_changes_nothing_in_it(site: Site) -> None:
    site.advance(1)
    assert site.back_up() == 1
    before = {path: path.stat().st_mtime_ns for path in (site.directory / "backup").rglob("*")}
    assert site.restore("restored") == 1
    assert {path: path.stat().st_mtime_ns for path in (site.directory / "backup").rglob("*")} == before
    with open_local_storage(site.directory / "restored/store") as storage:
        assert storage.store_id == site.storage.store_id


def test_the_next_backup_copies_what_is_new_and_says_so(site: Site) -> None:
    site.advance(1)
    site.back_up()
    site.advance(2)
    assert site.back_up() == 1
    assert site.back_up() == 0
    manifest = json.loads((site.directory / "backup/backup.json").read_bytes())
    assert (manifest["complete"], manifest["files"], manifest["database"]) == (True, 2, "mlflow.db")
    assert site.restore("restored") == 2
    assert sorted(path.name for path in (site.directory / "backup").iterdir()) == [
        "backup.json", "backup.lock", "mlflow.db", "store",
    ]  # fmt: skip


def test_nothing_is_restored_over_a_store_or_a_database(site: Site) -> None:
    site.advance(1)
    site.back_up()
    taken = site.directory / "taken"
    (taken / "store").mkdir(parents=True)
    (taken / "store/mine").write_text("mine")
    with pytest.raises(ConflictError, match="store already exists"):
        site.restore("taken")
    assert [path.name for path in taken.rglob("*")] == ["store", "mine"]
    (taken / "store/mine").unlink()
    (taken / "mlflow.db").write_text("mine")
    with pytest.raises(ConflictError, match="mlflow.db already exists"):
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
    log = site.directory / f"there/mlflow.db{suffix}"
    log.parent.mkdir()
    log.write_bytes(b"of another database")
    with pytest.raises(ConflictError, match=f"mlflow.db{suffix} .* move it away"):
        site.restore("there")
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    shutil.copyfile(site.directory / "backup/mlflow.db", log.parent / "mlflow.db")
    with pytest.raises(ConflictError, match="move it away"):
        site.restore("there")
    log.unlink()
    assert site.restore("there") == 1


def test_a_store_alone_is_backed_up_and_restored(site: Site) -> None:
    site.advance(1)
    backup, target = site.directory / "backup", site.directory / "restored"
    site.back_up()
    make_backup(ContentStore(site.storage), backup, None, timeout_seconds=1)
    assert not (backup / "mlflow.db").exists(), "it would be of another moment"
    with pytest.raises(ConflictError, match="does not contain a database"):
        site.restore("restored")
    restore_backup(backup, target, None)
    with open_local_storage(target, create=False) as storage:
        check_sound(storage)
