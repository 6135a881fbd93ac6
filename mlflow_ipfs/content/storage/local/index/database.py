"""SQLite connections of the index: pooled per process, with one writer at a time.

Autocheckpoint is off, and every commit and checkpoint runs under ``write.lock``. SQLite before 3.51.3 can corrupt its
log when one connection writes while another checkpoints (https://sqlite.org/wal.html, "the WAL-reset bug"). Current
Python releases still carry such versions.
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

CHECKPOINT_BYTES: Final = 4 << 20  # a commit that leaves a larger log also runs a checkpoint
_CHECKPOINT_SECONDS: Final = 0.5
_IDLE_CONNECTIONS: Final = 8

_inherited_connections: list[sqlite3.Connection] = []
"""Connections inherited through a fork. Using or closing one would disturb the parent process."""


class BorrowedConnection:
    """Context manager that borrows a connection from the pool. The process does not fork meanwhile.

    A class instead of a generator, because every read of a block uses one and a generator is slower.
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
        # Ctrl-C can interrupt between any two steps and leave a transaction open.
        if isinstance(error, sqlite3.Error) or self._connection.in_transaction:
            self._connection.close()  # its state is unknown, so it must not return to the pool
        else:
            self._database.give_back(self._connection)
        self._gate.leave()  # in a forked child this is the parent's gate, which the child does not use
        if error is not None:
            explained = explain(self._database.layout, error)
            if explained is not None:
                raise explained from error


class Database:
    """The index of one store, with a small pool of connections. No two threads use one connection at the same time.

    Args:
        layout: the paths of the store.
        disk: runs SQLite's commits and checkpoints.
        write_lock: held during each commit and checkpoint.
        timeout_seconds: how long to wait for another program that locks the database.
        read_only: open the database without writing to it, for a read-only mount.
    """

    def __init__(
        self, layout: Layout, disk: Disk, write_lock: FileLock, *, timeout_seconds: float, read_only: bool = False
    ) -> None:
        self.layout = layout
        self._disk = disk
        self._write_lock = write_lock
        self._timeout_seconds = timeout_seconds
        self._read_only = read_only
        self._has_written = False
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._is_closed = False
        self._file: tuple[int, int] | None = None  # device and inode of the file that the connections have open
        self._pid = os.getpid()
        forget_in_child(self)

    @property
    def read_only(self) -> bool:
        """Whether every write raises."""
        return self._read_only

    @property
    def timeout_seconds(self) -> float:
        """How long to wait for another process."""
        return self._timeout_seconds

    @property
    def has_written(self) -> bool:
        """Whether a transaction has committed since this object was opened, in this process or in its parent."""
        return self._has_written

    def check_writable(self) -> None:
        """Raise if the store cannot be changed.

        Raises:
            ImmutableError: the store is on a read-only mount.
        """
        if self._read_only:
            msg = f"the store {self.layout.directory} is on a read-only mount and cannot be changed: mount it writable"
            raise ImmutableError(msg)

    def after_fork_in_child(self) -> None:
        """Empty the pool: the connections in it belong to the parent process."""
        self._guard = threading.Lock()
        _inherited_connections.extend(self._idle)
        self._idle = []
        self._pid = os.getpid()

    def read(self) -> BorrowedConnection:
        """Borrow a connection for single statements. Each statement sees what was committed when it began."""
        return BorrowedConnection(self)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection on which all statements see the same state."""
        with self.read() as connection:
            _begin_snapshot(connection)
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def snapshot_during(self, begin: Callable[[], None]) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose snapshot is taken right after ``begin``, with no commit to this store in between.

        Args:
            begin: takes a snapshot of another database. Writers of this store wait while it runs.

        Raises:
            StoreBusyError: another process was writing for too long.
            Exception: whatever ``begin`` raises.
        """
        self.check_writable()
        with self.read() as connection:
            with self._write_lock.exclusive():
                self._check_not_replaced()
                begin()
                _begin_snapshot(connection)
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def wait_for_writer(self) -> None:
        """Wait until the current write transaction has ended. Later reads see what it wrote.

        Raises:
            StoreBusyError: the transaction took too long.
        """
        with self._write_lock.exclusive():
            pass

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that commits at the end of the ``with`` and rolls back on an error.

        Raises:
            StoreBusyError: another process was writing for too long.
            StoreFullError: the disk is full; nothing was changed.
            StoreFormatError: the store was moved, deleted or replaced; nothing was changed.
        """
        self.check_writable()
        with self._write_lock.exclusive(), self.read() as connection:
            self._check_not_replaced()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                self._disk.commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.rollback()
                raise
            self._has_written = True
            # The commit is durable already: a failed checkpoint is retried by a later commit.
            with suppress(sqlite3.Error, OSError):
                self._checkpoint_if_large(connection)

    def _checkpoint_if_large(self, connection: sqlite3.Connection) -> None:
        if self.layout.log.stat().st_size > CHECKPOINT_BYTES:
            self._checkpoint(connection, 0)

    def checkpoint(self) -> None:
        """Move the log into the database now, as far as concurrent readers allow it.

        Raises:
            StoreBusyError: another process was writing for too long.
        """
        with self._write_lock.exclusive(), self.read() as connection:
            self._checkpoint(connection, _CHECKPOINT_SECONDS)

    def _checkpoint(self, connection: sqlite3.Connection, wait_seconds: float) -> None:
        """Run a checkpoint. The wait for readers of the log is short, because all writers are blocked during it."""
        connection.execute(f"PRAGMA busy_timeout = {int(wait_seconds * 1000)}")
        try:
            self._disk.checkpoint(connection)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._timeout_seconds * 1000)}")

    def close(self) -> None:
        """Close every connection. Later reads and writes raise ValueError."""
        self._has_written = False
        with self._guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
        # SQLite empties its log when the last connection closes. It does so only after it has locked out all other
        # connections, so here the write lock is not needed.
        for connection in idle:
            connection.close()

    def take(self) -> sqlite3.Connection:
        """Return an idle connection, or a new one."""
        with self._guard:
            if self._is_closed:
                msg = f"the store {self.layout.directory} is closed"
                raise ValueError(msg)
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Return a connection to the pool."""
        if self._pid != os.getpid():
            _inherited_connections.append(connection)
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
            # Opening a database needs disk space even for a reader: SQLite writes a shared memory file.
            if not free_reserve(self.layout, self._disk):
                raise
            return self._open()

    def _open(self) -> sqlite3.Connection:
        # A read-only mount has no writers, which is the condition for SQLite's "immutable" mode.
        query = "mode=ro&immutable=1" if self._read_only else "mode=rw"
        with translate_database_errors(self.layout):
            self._check_not_replaced()  # before and after: a rebuild can replace the file at any moment
            connection = sqlite3.connect(
                f"file:{quote(str(self.layout.database))}?{query}",
                uri=True,
                timeout=self._timeout_seconds,
                isolation_level=None,  # this module begins and ends transactions explicitly
                check_same_thread=False,  # the pool gives a connection to one thread at a time
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                self._check_not_replaced()
            except BaseException:
                connection.close()
                raise
        return connection

    def _check_not_replaced(self) -> None:
        """Raise if the index file was moved, deleted or replaced while open: later writes would be lost."""
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
    connection.execute("SELECT 1 FROM meta LIMIT 1").fetchone()  # SQLite takes the snapshot at the first read
