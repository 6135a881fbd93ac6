"""Store and database to back up, which record the same number, and a disk that stops working at one step."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import sqlalchemy

from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.storages import SteppedDisk, check_sound, publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.system.disk import Disk

TIMEOUT_SECONDS = 1.0


class Site:
    """Store and database that record the same number: in the version of a ref, and in a row."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "mlflow.db"
        self.storage = open_local_storage(directory / "store", timeout_seconds=TIMEOUT_SECONDS)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE experiments (number INTEGER)")

    @property
    def url(self) -> URL:
        return sqlalchemy.make_url(f"sqlite:///{self.database}")

    def advance(self, number: int) -> None:
        """Record the next number in both, with content that is unique to this number."""
        cid = publish_file(self.storage, os.urandom(20_000), owner=f"number-{number}")
        self.storage.refs.set("number", cid, expected_version=number - 1)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("DELETE FROM experiments")
            connection.execute("INSERT INTO experiments VALUES (?)", (number,))

    def back_up(self, *, disk: Disk | None = None, to: str = "backup") -> int:
        """Make a backup. Return the number of copied files."""
        store = ContentStore(self.storage)
        _, report = make_backup(store, self.directory / to, self.url, timeout_seconds=TIMEOUT_SECONDS, disk=disk)
        assert report.problems == ()
        return report.copied_files

    def restore(self, name: str, *, disk: Disk | None = None) -> int:
        """Restore to a directory, and verify all data. Return the number that both record."""
        target = self.directory / name
        url = sqlalchemy.make_url(f"sqlite:///{target}/mlflow.db")
        _, report, _ = restore_backup(self.directory / "backup", target / "store", url, disk=disk)
        assert report is None or report.problems == ()
        return recorded_number(target)


def recorded_number(directory: Path) -> int:
    """Return the number that a restored store and its database record. Check that it is the same and data is sound."""
    with closing(sqlite3.connect(directory / "mlflow.db")) as connection:
        [(in_database,)] = connection.execute("SELECT number FROM experiments").fetchall()
    with open_local_storage(directory / "store", create=False) as storage:
        check_sound(storage)
        ref = storage.refs.get("number")
        assert storage.file_path(ref.cid) is not None
        assert ref.version == in_database
        assert storage.scrub().problems == ()
    assert not (directory / "store" / "restoring").exists()
    return int(in_database)


class KilledError(BaseException):
    """Simulation of a kill, which no code catches."""


class MortalDisk(SteppedDisk):
    """Disk that raises before the n-th step and at every later step, so that no cleanup happens."""

    def __init__(self, steps: int) -> None:
        super().__init__(self._take)
        self.left = steps

    def _take(self, step: str) -> None:
        del step
        self.left -= 1
        if self.left < 0:
            raise KilledError
