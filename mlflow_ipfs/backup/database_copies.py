"""Copies of MLflow's database in the same state as the store, and their restore into an empty location."""

from __future__ import annotations

import filecmp
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from mlflow_ipfs.backup.postgres_copies import PostgresCopy, PostgresRestore
from mlflow_ipfs.content.storage.local.backup import Participant, copy_durably, translate_copy_errors
from mlflow_ipfs.content.system.locking import locked_directory
from mlflow_ipfs.content.system.ownership import create_parents
from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    SettingsError,
    StoreBusyError,
    StoreFormatError,
)

if TYPE_CHECKING:
    from sqlalchemy import URL

    from mlflow_ipfs.content.system.disk import Disk

SQLITE_FILE: Final = "mlflow.db"
_ADVICE: Final = "name MLflow's database with --backend-store-uri, or leave it out with --store-only"
POSTGRES_FILE: Final = "mlflow.dump"
FILES: Final = (SQLITE_FILE, POSTGRES_FILE)
_LOCK_SECONDS: Final = 1.0  # MLflow's writers hold SQLite's lock for the length of a commit
_RESTORE_SECONDS: Final = 30.0  # to wait for the restore of another database into the same directory


class DatabaseCopy(Participant, Protocol):
    """One database that can be copied. Its ``copy_after_snapshot`` leaves a finished, durable file."""

    @property
    def file_name(self) -> str:
        """The name of the copy."""

    def close(self) -> None:
        """Disconnect from the database."""


class DatabaseRestore(Protocol):
    """Restore of one database copy to one location."""

    def check_copy(self) -> None:
        """Raise if the copy is damaged.

        Raises:
            StoreFormatError: the copy is damaged.
        """

    def check(self) -> None:
        """Raise if the location is in use.

        Raises:
            ConflictError: a database exists there.
        """

    def restore(self) -> bool:
        """Restore the whole copy or nothing. Return whether a database was written."""


def open_copy(url: URL, directory: Path, disk: Disk, scratch: Path) -> DatabaseCopy:
    """Return a copier of a database to a file in a directory.

    Args:
        url: the database.
        directory: the directory of the copy.
        disk: performs every operation on it.
        scratch: a directory on a fast disk.

    Raises:
        NotFoundError: the database does not exist, or the program that copies it is not installed.
        SettingsError: the database cannot be reached, or is not MLflow's.
    """
    if url.get_backend_name() == "postgresql":
        return PostgresCopy(url, directory / POSTGRES_FILE)
    return SqliteCopy(sqlite_file(url), directory / SQLITE_FILE, disk, scratch)


def open_restore(url: URL, copy: Path, disk: Disk) -> DatabaseRestore:
    """Return the restore of a copy to the location that a URL names.

    Raises:
        SettingsError: the copy is of another kind of database.
    """
    kind = "postgresql" if copy.name == POSTGRES_FILE else "sqlite"
    if url.get_backend_name() != kind:
        msg = (
            f"the backup contains a {kind} database and cannot be restored to another kind: name a {kind} database "
            "with --backend-store-uri"
        )
        raise SettingsError(msg)
    return PostgresRestore(url, copy) if kind == "postgresql" else SqliteRestore(sqlite_file(url), copy, disk)


def sqlite_file(url: URL) -> Path:
    """Return the file of a SQLite database.

    Raises:
        SettingsError: the URL does not name a file.
    """
    if not url.database or url.database.startswith((":memory:", "file:")):
        msg = "only a SQLite database in a file can be copied or restored: name it as sqlite:///<file>"
        raise SettingsError(msg)
    return Path(url.database).absolute()


class SqliteCopy:
    """Copier of a database file in one step. MLflow's writers wait during this step: some seconds for each GB.

    Args:
        source: the database file.
        destination: the path of the copy.
        disk: performs every operation on the copy.
        scratch: a directory on a fast disk. The copy is first written there, because the step must be short.

    Raises:
        NotFoundError: the file does not exist.
        SettingsError: it is not a database of MLflow.
    """

    file_name: Final = SQLITE_FILE

    def __init__(self, source: Path, destination: Path, disk: Disk, scratch: Path) -> None:
        self._source, self._destination, self._disk = source, destination, disk
        self._draft = scratch / destination.name
        self._connection: sqlite3.Connection | None = None
        if not source.is_file():
            msg = f"the database {source} does not exist: {_ADVICE}"
            raise NotFoundError(msg)
        with closing(self._connect()) as connection:
            _check_is_mlflow(connection, source)

    def begin(self) -> None:
        """Begin a read transaction, which sees one state. MLflow's writers cannot commit until it ends."""
        self.end()
        self._connection = self._connect()
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise _explain(self._source, error) from error

    def copy_during_snapshot(self) -> None:
        """Copy the state that the transaction sees, and end the transaction."""
        assert self._connection is not None
        try:
            with translate_copy_errors(self._draft.parent):
                self._disk.remove(self._draft)  # left by an earlier attempt
                self._disk.close(self._disk.create(self._draft))  # readable by this user alone from the start
            with closing(sqlite3.connect(self._draft, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # the file is synced when it is copied to its destination
                self._connection.backup(copy)
        except sqlite3.Error as error:
            raise _explain(self._source, error) from error
        finally:
            self.end()

    def copy_after_snapshot(self) -> None:
        """Copy the draft to the destination durably, and remove the draft."""
        with translate_copy_errors(self._destination.parent):
            copy_durably(self._disk, self._draft, self._destination)
        self._disk.remove(self._draft)

    def end(self) -> None:
        """End the transaction."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    close = end

    def _connect(self) -> sqlite3.Connection:
        # Not read-only: a reader must first roll back a journal that a killed writer has left.
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self._source))}?mode=rw", uri=True, timeout=_LOCK_SECONDS, isolation_level=None
            )
        except sqlite3.Error as error:
            raise _explain(self._source, error) from error
        connection.execute("PRAGMA query_only = ON")
        return connection


def _check_is_mlflow(connection: sqlite3.Connection, path: Path) -> None:
    try:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
    except sqlite3.OperationalError:
        return  # locked: checked again at the next attempt
    except sqlite3.DatabaseError as error:
        raise _explain(path, error) from error
    if found is None:
        msg = f"{path} does not have MLflow's tables: {_ADVICE}"
        raise SettingsError(msg)


def _explain(path: Path, error: sqlite3.Error) -> MlflowIpfsError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusyError(f"another program keeps MLflow's database {path} locked ({error}): end it, or try again")
    return MlflowIpfsError(f"MLflow's database {path} cannot be copied ({error}): repair it, or use --store-only")


class SqliteRestore:
    """Restore of a database file to a path at which no file exists.

    Args:
        target: the path of the database.
        copy: the file in the backup.
        disk: performs every operation.
    """

    def __init__(self, target: Path, copy: Path, disk: Disk) -> None:
        self._target, self._copy, self._disk = target, copy, disk

    def check_copy(self) -> None:
        """Raise if the copy is not an undamaged database of MLflow."""
        try:
            # Immutable: SQLite creates neither a lock nor a log in the backup.
            query = f"file:{quote(str(self._copy))}?mode=ro&immutable=1"
            with closing(sqlite3.connect(query, uri=True)) as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found == "ok":
                    _check_is_mlflow(connection, self._copy)
        except (sqlite3.Error, SettingsError) as error:
            found = str(error)
        if found != "ok":
            msg = (
                f"the copy {self._copy} of MLflow's database is damaged ({found}): restore the store with --store-only, "
                "and recover what you can from that file"
            )
            raise StoreFormatError(msg)

    def check(self) -> None:
        """Raise if another database exists at the path, or a log that SQLite would replay into the restored one.

        A file that is equal to the copy is accepted: it is already restored.
        """
        for log in (self._target.with_name(f"{self._target.name}{suffix}") for suffix in ("-journal", "-wal")):
            if os.path.lexists(log):
                msg = (
                    f"{log} is the log of an earlier database, and SQLite would apply it to the restored one: "
                    "move it away"
                )
                raise ConflictError(msg)
        if os.path.lexists(self._target) and not self._is_done():
            msg = f"{self._target} already exists and was not overwritten: move it away, or name another path"
            raise ConflictError(msg)

    def restore(self) -> bool:
        """Restore the whole file or nothing. Return False if an equal file already exists.

        Raises:
            StoreBusyError: another restore wrote into the same directory for too long.
        """
        with translate_copy_errors(self._target.parent):
            create_parents(self._target)
            with locked_directory(self._target.parent, "restores a database into", timeout_seconds=_RESTORE_SECONDS):
                self.check()
                if self._is_done():
                    return False
                self._restore()
                return True

    def _restore(self) -> None:
        draft = self._target.with_name(f"{self._target.name}.restoring")
        self._disk.remove(draft)
        try:
            copy_durably(self._disk, self._copy, draft)
            self.check()
            self._disk.rename(draft, self._target)
            self._disk.sync_directory(self._target.parent)
        finally:
            self._disk.remove(draft)

    def _is_done(self) -> bool:
        with suppress(OSError):
            return filecmp.cmp(self._copy, self._target, shallow=False)
        return False
