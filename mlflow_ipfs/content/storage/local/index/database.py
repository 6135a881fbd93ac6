"""SQLite under our own rules: one writer at a time by our own lock, connections for each thread and process.

Autocheckpoint is off, and every commit and checkpoint happens under ``write.lock``: SQLite before
3.51.3 can corrupt its log when one connection writes while another checkpoints, and the Pythons
of today carry older ones (https://sqlite.org/wal.html, "the WAL-reset bug").
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlflow_ipfs.content.storage.local.index.error_translation import explain, store_is_gone, translate_database_errors
from mlflow_ipfs.content.storage.local.index.layout import free_reserve
from mlflow_ipfs.content.system.forking import current_gate, forget_in_child
from mlflow_ipfs.errors import ImmutableError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk
    from mlflow_ipfs.content.system.locking import FileLock

CHECKPOINT_BYTES: Final = 4 << 20  # size of the log from which on a commit also moves it into the database
_CHECKPOINT_SECONDS: Final = 0.5
_IDLE_CONNECTIONS: Final = 8

_of_parents: list[sqlite3.Connection] = []
"""Connections that a fork brought along. Using or closing one would disturb the parent's."""


class Borrowed:
    """A connection for the length of a ``with``, which the process does not fork in.

    A class, not a generator: every read of a block passes here.
    """

    __slots__ = ("_connection", "_database", "_gate")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._gate = current_gate()
        self._gate.enter()
        try:
            self._connection = self._database.take()
        except BaseException:
            self._gate.leave()
            raise
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ctrl-C may come between any two steps, and leave a transaction open.
        if isinstance(error, sqlite3.Error) or self._connection.in_transaction:
            self._connection.close()  # whatever state it is in, nobody meets it again
        else:
            self._database.give_back(self._connection)
        self._gate.leave()  # in a forked child: the parent's gate, which nobody uses there
        if error is not None:
            explained = explain(self._database.layout, error)
            if explained is not None:
                raise explained from error


class Database:
    """The index of one store: a small pool of connections, none of them ever used by two threads at once.

    Args:
        layout: where the store is.
        disk: takes SQLite's commits and checkpoints.
        write_lock: held for each of them.
        timeout_seconds: how long to wait for another program that locks the database.
        read_only: open without ever writing, for a read-only mount.
    """

    def __init__(
        self, layout: Layout, disk: Disk, write_lock: FileLock, *, timeout_seconds: float, read_only: bool = False
    ) -> None:
        self.layout = layout
        self._disk = disk
        self._write_lock = write_lock
        self._timeout_seconds = timeout_seconds
        self._read_only = read_only
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._is_closed = False
        self._file: tuple[int, int] | None = None  # device and inode of the database that the connections are open on
        self._pid = os.getpid()
        forget_in_child(self)

    @property
    def read_only(self) -> bool:
        """Whether every write is refused."""
        return self._read_only

    @property
    def timeout_seconds(self) -> float:
        """How long to wait for somebody else."""
        return self._timeout_seconds

    def check_writable(self) -> None:
        """Refuse what would change the store, if that is not possible.

        Raises:
            ImmutableError: the store is on a read-only mount.
        """
        if self._read_only:
            msg = f"the store {self.layout.directory} is on a read-only mount and cannot be changed"
            raise ImmutableError(msg)

    def after_fork_in_child(self) -> None:
        """Start with no connections."""
        self._guard = threading.Lock()
        _of_parents.extend(self._idle)
        self._idle = []
        self._pid = os.getpid()

    def read(self) -> Borrowed:
        """A connection for single statements; each sees what was committed when it began."""
        return Borrowed(self)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which all statements see the same state."""
        with self.read() as connection:
            _begin_snapshot(connection)
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def snapshot_during(self, begin: Callable[[], None]) -> Iterator[sqlite3.Connection]:
        """As ``snapshot``, of a moment in which ``begin`` runs to its end and nobody commits to this store.

        Args:
            begin: takes a snapshot of something else; every writer of the store waits for it.

        Raises:
            StoreBusyError: another process was writing for too long.
            Exception: whatever ``begin`` raises.
        """
        self.check_writable()
        with self.read() as connection:
            with self._write_lock.exclusive():
                self._check_in_place()
                begin()
                _begin_snapshot(connection)
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def wait_for_writer(self) -> None:
        """Let a transaction that is under way end: what is read from here on shows what it did.

        Raises:
            StoreBusyError: it took too long.
        """
        with self._write_lock.exclusive():
            pass

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that is committed at the end, or rolled back on an error.

        Raises:
            StoreBusyError: another process was writing for too long.
            StoreFullError: the disk is full; nothing was changed.
            StoreFormatError: the store is no longer where it was opened; nothing was changed.
        """
        self.check_writable()
        with self._write_lock.exclusive(), self.read() as connection:
            self._check_in_place()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                self._disk.commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.rollback()
                raise
            # What is committed stays so; a checkpoint that fails is only put off.
            with suppress(sqlite3.Error, OSError):
                self._checkpoint_if_large(connection)

    def _checkpoint_if_large(self, connection: sqlite3.Connection) -> None:
        if self.layout.log.stat().st_size > CHECKPOINT_BYTES:
            self._checkpoint(connection, 0)

    def checkpoint(self) -> None:
        """Move the whole log into the database now, as far as readers let it.

        Raises:
            StoreBusyError: another process was writing for too long.
        """
        with self._write_lock.exclusive(), self.read() as connection:
            self._checkpoint(connection, _CHECKPOINT_SECONDS)

    def _checkpoint(self, connection: sqlite3.Connection, wait_seconds: float) -> None:
        """Wait for readers of the log for so long at most: meanwhile nobody can write."""
        connection.execute(f"PRAGMA busy_timeout = {int(wait_seconds * 1000)}")
        try:
            self._disk.checkpoint(connection)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._timeout_seconds * 1000)}")

    def close(self) -> None:
        """Close every connection. Reads and writes after it raise ValueError."""
        with self._guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
        # With the last connection SQLite empties its log. It does so only if it can lock out every
        # other connection, so for once our own lock is not needed.
        for connection in idle:
            connection.close()

    def take(self) -> sqlite3.Connection:
        """An idle connection, or a new one."""
        with self._guard:
            if self._is_closed:
                msg = f"the store {self.layout.directory} is closed"
                raise ValueError(msg)
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Let others use a connection again."""
        if self._pid != os.getpid():
            _of_parents.append(connection)
            return
        with self._guard:
            if not self._is_closed and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except StoreFullError:
            # Even a reader needs room for SQLite's shared memory file.
            if not free_reserve(self.layout, self._disk):
                raise
            return self._open()

    def _open(self) -> sqlite3.Connection:
        # A read-only mount has no writers, which is what SQLite's "immutable" means.
        query = "mode=ro&immutable=1" if self._read_only else "mode=rw"
        with translate_database_errors(self.layout):
            self._check_in_place()  # before and after: a rebuild may put another database there at any moment
            connection = sqlite3.connect(
                f"file:{quote(str(self.layout.database))}?{query}",
                uri=True,
                timeout=self._timeout_seconds,
                isolation_level=None,  # transactions are begun and ended by hand
                check_same_thread=False,  # the pool sees to it
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                self._check_in_place()
            except BaseException:
                connection.close()
                raise
        return connection

    def _check_in_place(self) -> None:
        """Refuse to go on with an index that is not at its path any more: what it is told would be lost with it."""
        try:
            status = os.stat(self.layout.database)
        except FileNotFoundError:
            raise store_is_gone(self.layout) from None
        file = status.st_dev, status.st_ino
        if self._file not in {None, file}:
            raise store_is_gone(self.layout)
        self._file = file


def _begin_snapshot(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # only the first read takes the snapshot
