"""Copies of MLflow's database, made in one moment of the store, and put back where there is none."""

from __future__ import annotations

import filecmp
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from mlflow_ipfs.backup.postgres_copies import PostgresCopy, PostgresRestore
from mlflow_ipfs.binding.databases.connections import PREFIX, name_driver
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
    from collections.abc import Mapping

    from sqlalchemy import URL

    from mlflow_ipfs.content.system.disk import Disk

SQLITE_FILE: Final = "mlflow.db"
POSTGRES_FILE: Final = "mlflow.dump"
FILES: Final = (SQLITE_FILE, POSTGRES_FILE)
_LOCK_SECONDS: Final = 1.0  # MLflow's writers hold SQLite's lock for the length of a commit
_RESTORE_SECONDS: Final = 30.0  # for somebody who restores another database into the same directory
_WHAT_TO_DO: Final = "name MLflow's database with --backend-store-uri, or leave it out with --store-only"


class DatabaseCopy(Participant, Protocol):
    """One database that can be copied; its ``copy_after_snapshot`` leaves a finished, durable file."""

    @property
    def file_name(self) -> str:
        """What the copy is called."""

    def close(self) -> None:
        """Let go of the database."""


class DatabaseRestore(Protocol):
    """A place where a database can be put."""

    def check_copy(self) -> None:
        """Refuse a copy that is damaged.

        Raises:
            StoreFormatError: it is.
        """

    def check(self) -> None:
        """Refuse a place that is taken.

        Raises:
            ConflictError: there is a database.
        """

    def restore(self) -> bool:
        """Put the copy there, all of it or nothing."""


def find_database(named: str | None, environ: Mapping[str, str]) -> URL:
    """The database that MLflow keeps its runs and models in.

    Args:
        named: its URI, with or without our prefix; None: as MLflow's settings say.
        environ: where these are.

    Raises:
        SettingsError: it isn't named, or is no database that can be copied.
    """
    variables = {name: environ.get(name) for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_TRACKING_URI")}
    given = {"--backend-store-uri": named} | variables
    place, uri = next(((place, uri) for place, uri in given.items() if uri), ("", ""))
    if not uri:
        msg = f"neither MLFLOW_BACKEND_STORE_URI nor MLFLOW_TRACKING_URI is set: {_WHAT_TO_DO}"
        raise SettingsError(msg)
    try:
        url = sqlalchemy.make_url(name_driver(uri.removeprefix(PREFIX)))
    except (ArgumentError, ValueError):  # its message may have a password in it
        msg = f"the value of {place} is no URI of a database, as sqlite:///mlflow.db is of a file: {_WHAT_TO_DO}"
        raise SettingsError(msg) from None
    backend = url.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        what = "a server's address" if backend in {"http", "https"} else f"{backend!r}, which can't be copied here"
        msg = f"{place} is {what}: {_WHAT_TO_DO}"
        raise SettingsError(msg)
    return _hide_password(url, place)


def _hide_password(url: URL, place: str) -> URL:
    """Move a password from the query, where libpq takes it too, to where it is never shown nor handed on in the open."""
    if "sslpassword" in url.query:
        msg = f"the value of {place} has an sslpassword, which pg_dump could be told only in the open: use a key without one"
        raise SettingsError(msg)
    password = url.query.get("password")
    if password is None:
        return url
    return url.difference_update_query(["password"]).set(
        password=password if isinstance(password, str) else password[-1]
    )


def open_copy(url: URL, directory: Path, disk: Disk, scratch: Path) -> DatabaseCopy:
    """Get ready to copy a database to a file in a directory.

    Args:
        url: the database.
        directory: where the copy goes.
        disk: takes it.
        scratch: a directory on a fast disk.

    Raises:
        NotFoundError: there is no such database, or no program to copy it.
        SettingsError: it can't be reached, or is not MLflow's.
    """
    if url.get_backend_name() == "postgresql":
        return PostgresCopy(url, directory / POSTGRES_FILE)
    return SqliteCopy(sqlite_file(url), directory / SQLITE_FILE, disk, scratch)


def open_restore(url: URL, copy: Path, disk: Disk) -> DatabaseRestore:
    """Get ready to put a copy where the URI says.

    Raises:
        SettingsError: the copy is of another kind of database.
    """
    kind = "postgresql" if copy.name == POSTGRES_FILE else "sqlite"
    if url.get_backend_name() != kind:
        msg = f"the backup is of a {kind} database, and can only be restored into one: name it with --backend-store-uri"
        raise SettingsError(msg)
    return PostgresRestore(url, copy) if kind == "postgresql" else SqliteRestore(sqlite_file(url), copy, disk)


def sqlite_file(url: URL) -> Path:
    """The file of a SQLite database.

    Raises:
        SettingsError: it has none.
    """
    if not url.database or url.database.startswith((":memory:", "file:")):
        msg = "a SQLite database is named by its file, sqlite:///<file>; there is nothing else to copy"
        raise SettingsError(msg)
    return Path(url.database).absolute()


class SqliteCopy:
    """Copies a database file in one step, for which MLflow's writers wait: some seconds for each GB.

    Args:
        source: the file.
        destination: where the copy goes.
        disk: takes it.
        scratch: a directory on a fast disk for it, until it goes to its place: the step must be a short one.

    Raises:
        NotFoundError: there is no such file.
        SettingsError: it is no database of MLflow's.
    """

    file_name: Final = SQLITE_FILE

    def __init__(self, source: Path, destination: Path, disk: Disk, scratch: Path) -> None:
        self._source, self._destination, self._disk = source, destination, disk
        self._draft = scratch / destination.name
        self._connection: sqlite3.Connection | None = None
        if not source.is_file():
            msg = f"there is no database {source}: {_WHAT_TO_DO}"
            raise NotFoundError(msg)
        with closing(self._connect()) as connection:
            _check_is_mlflow(connection, source)

    def begin(self) -> None:
        """Let a read transaction see one state. MLflow's writers can't commit until it ends."""
        self.end()
        self._connection = self._connect()
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise _explain(self._source, error) from error

    def copy_during_snapshot(self) -> None:
        """Copy what the transaction sees, and end it."""
        assert self._connection is not None
        try:
            with translate_copy_errors(self._draft.parent):
                self._disk.remove(self._draft)  # of an earlier try
                self._disk.close(self._disk.create(self._draft))  # private from the start
            with closing(sqlite3.connect(self._draft, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # it is synced when it goes to its place
                self._connection.backup(copy)
        except sqlite3.Error as error:
            raise _explain(self._source, error) from error
        finally:
            self.end()

    def copy_after_snapshot(self) -> None:
        """Give the copy its place."""
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
        # Not read-only: a journal that a killed writer has left must be rolled back first, as by any reader.
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
        return  # busy: there will be other tries
    except sqlite3.DatabaseError as error:
        raise _explain(path, error) from error
    if found is None:
        msg = f"{path} has no tables of MLflow: {_WHAT_TO_DO}"
        raise SettingsError(msg)


def _explain(path: Path, error: sqlite3.Error) -> MlflowIpfsError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusyError(f"another program keeps MLflow's database {path} locked ({error}); end it, or try again")
    return MlflowIpfsError(f"MLflow's database {path} can't be copied: {error}")


class SqliteRestore:
    """Puts a database file where none is.

    Args:
        target: its path.
        copy: the file in the backup.
        disk: takes it.
    """

    def __init__(self, target: Path, copy: Path, disk: Disk) -> None:
        self._target, self._copy, self._disk = target, copy, disk

    def check_copy(self) -> None:
        """Refuse a copy that is no whole database of MLflow's."""
        try:
            # Immutable: not even a lock or a log of SQLite's is made in the backup.
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
                "and save from that file what can be saved"
            )
            raise StoreFormatError(msg)

    def check(self) -> None:
        """Refuse to write over a database, or beside what SQLite would replay into it.

        One that is the copy already is as good as restored.
        """
        for log in (self._target.with_name(f"{self._target.name}{suffix}") for suffix in ("-journal", "-wal")):
            if os.path.lexists(log):
                msg = (
                    f"{log} is left of a former database, and SQLite would write it into the restored one: move it away"
                )
                raise ConflictError(msg)
        if os.path.lexists(self._target) and not self._is_done():
            msg = f"{self._target} is there already, and nothing is written over it: move it away, or name another"
            raise ConflictError(msg)

    def restore(self) -> bool:
        """Put the file there with all its bytes, or not at all. False if it was there already, the same.

        Raises:
            StoreBusyError: another restore was writing into the same directory for too long.
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
