"""Which database is MLflow's, and how it is copied while others write to it."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.backup.database_copies import SqliteCopy
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import NotFoundError, SettingsError, StoreBusyError
from support.storages import publish_file

if TYPE_CHECKING:
    from support.backup_sites import Site

LONG_SECONDS = 60.0


def test_a_database_that_is_not_mlflows_is_refused(site: Site) -> None:
    site.database.unlink()
    with pytest.raises(NotFoundError):
        site.back_up()
    site.database.write_bytes(b"")
    with pytest.raises(SettingsError, match="does not have MLflow's tables"):
        site.back_up()


def test_a_writer_in_mlflows_database_is_waited_for_but_nobody_waits_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.advance(1)
    has_begun = threading.Event()
    begin = SqliteCopy.begin

    def tell_and_begin(copy: SqliteCopy) -> None:
        if not has_begun.is_set():  # not before: what the database names is read earlier, without the store's lock
            writer.execute("BEGIN EXCLUSIVE")
            has_begun.set()
        begin(copy)

    monkeypatch.setattr(SqliteCopy, "begin", tell_and_begin)
    with (
        ThreadPoolExecutor(1) as pool,
        open_local_storage(site.directory / "store") as other,
        closing(sqlite3.connect(site.database, isolation_level=None, check_same_thread=False)) as writer,
    ):
        site.storage.close()
        site.storage = open_local_storage(site.directory / "store", timeout_seconds=LONG_SECONDS)
        backup = pool.submit(site.back_up)
        assert has_begun.wait(LONG_SECONDS), "now the backup holds the store's lock, and waits for MLflow's"
        publish_file(other, b"published while MLflow's database is locked", owner="other")
        assert not backup.done()
        writer.execute("COMMIT")
        assert backup.result() > 0
    assert site.restore("restored") == 1


@pytest.mark.slow
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
        assert (site.directory / "mlflow.db-wal").stat().st_size > 0
        site.back_up()
    assert site.restore("restored") == 1
