"""PostgreSQL's own programs, told which state to copy: ``pg_dump --snapshot`` and ``pg_restore``.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    SettingsError,
    StoreBusyError,
    StoreFormatError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL
    from sqlalchemy.engine import Connection, Engine

_CONNECT_SECONDS: Final = 30
_MOMENT_MILLISECONDS: Final = 5000  # every publisher of the store waits meanwhile
_CONNECT_ARGUMENTS: Final = {  # of libpq
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 5,
    "tcp_user_timeout": _MOMENT_MILLISECONDS,  # without a sign of the server; else the kernel waits for minutes
}
_PROGRAM_ARGUMENTS: Final = {  # for which nobody waits, so that they outlive a short trouble of the network
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
}
_LOOK_SECONDS: Final = 60.0  # between two looks whether the server still answers
_SILENT_LOOKS: Final = 5  # after which nobody waits for it any more
_LOOK_PROGRAM: Final = "pg_isready"
_ANSWERED: Final = {0, 1}  # it accepts connections; it rejects them, as while it starts
_LONGEST_ANSWER: Final = 1000  # characters of what a program says
_RESTORE_LOCK: Final = 0x4D495046  # "MIPF", among PostgreSQL's advisory locks
_LOCK_MILLISECONDS: Final = 60_000  # for somebody who changes a table, as `mlflow db upgrade` does
_OWN_TABLES: Final = """
    SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')  -- no index: one in an extension does not belong to it by itself
    AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
"""


class PostgresCopy:
    """Dumps a database as one transaction saw it. Nobody waits for that, however long it takes.

    Args:
        url: the database.
        destination: where the dump goes.

    Raises:
        NotFoundError: there is no ``pg_dump``, or no ``pg_isready``.
        SettingsError: the database can't be reached, or has no tables of MLflow's.
    """

    file_name: Final = "mlflow.dump"

    def __init__(self, url: URL, destination: Path) -> None:
        self._program = _find_program("pg_dump")
        _find_program(_LOOK_PROGRAM)  # now, not in the midst
        self._url, self._destination = url, destination
        self._snapshot = ""
        self._is_lost = False  # the connection
        # Connected before the moment: a handshake takes longer than everybody should have to wait.
        self._connection: Connection = _connect(url, "REPEATABLE READ")
        try:
            _check_is_mlflow(self._connection, url)
        except BaseException:
            self.close()
            raise
        self.end()

    def begin(self) -> None:
        """Start a transaction, and let others see what it sees.

        Raises:
            StoreBusyError: the server didn't answer in time, or can't be reached any more.
            SettingsError: it refuses.
        """
        if self._is_lost:
            msg = (
                f"the connection to the database {_printable(self._url)} was lost, and there is no other yet; try again"
            )
            raise StoreBusyError(msg)
        try:
            # Not among the connection's options: a pooler refuses these. ``pg_dump`` has a connection of its own.
            self._connection.execute(sqlalchemy.text(f"SET LOCAL statement_timeout = {_MOMENT_MILLISECONDS}"))
            _stay_idle(self._connection)
            self._snapshot = str(self._connection.execute(sqlalchemy.text("SELECT pg_export_snapshot()")).scalar_one())
        except OperationalError as error:
            self._is_lost = self._connection.invalidated
            msg = f"the database {_printable(self._url)} did not answer in time ({_one_line(error.orig)}); try again"
            raise StoreBusyError(msg) from error
        except SQLAlchemyError as error:
            raise _unreachable(self._url, error) from error

    def copy_during_snapshot(self) -> None:
        """Nothing: nobody waits."""

    def copy_after_snapshot(self) -> None:
        """Dump what the transaction sees. ``pg_dump`` syncs the file.

        Raises:
            MlflowIpfsError: ``pg_dump`` failed.
            StoreBusyError: the server has gone silent.
        """
        self._destination.touch(mode=0o600)  # private from the start
        options = ["--format=custom", f"--snapshot={self._snapshot}", f"--file={self._destination}"]
        _run(self._program, [*options, f"--lock-wait-timeout={_LOCK_MILLISECONDS}"], self._url)

    def end(self) -> None:
        """End the transaction. A connection that was lost is made anew, while nobody waits for it.

        If that can't be, as while the server restarts, it is tried again after the next ``begin``, which fails.
        """
        with suppress(SQLAlchemyError):  # lost while the dump went on, which had a connection of its own
            self._connection.rollback()
        if self._is_lost:
            self.close()
            with suppress(SettingsError):
                self._connection = _connect(self._url, "REPEATABLE READ")
                self._is_lost = False

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(SQLAlchemyError):
            self._connection.close()


class PostgresRestore:
    """Fills an empty database, in one transaction.

    Args:
        url: the database.
        copy: the dump.

    Raises:
        NotFoundError: there is no ``pg_restore``, or no ``pg_isready``.
    """

    def __init__(self, url: URL, copy: Path) -> None:
        self._url, self._copy = url, copy
        self._program = _find_program("pg_restore")
        _find_program(_LOOK_PROGRAM)  # now, not in the midst

    def check_copy(self) -> None:
        """Refuse what is no dump. What is in it is read only when it is restored.

        Raises:
            StoreFormatError: it is none, or of a newer ``pg_dump``.
            StoreBusyError: it can't be read in time.
        """
        try:
            done = subprocess.run(  # noqa: S603 - found on PATH by its fixed name, with no shell in between
                [self._program, "--list", self._copy],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_LOOK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"the dump {self._copy} was not read within {_LOOK_SECONDS:g} s: look at its disk, and try again"
            raise StoreBusyError(msg) from error
        if done.returncode != 0:
            msg = f"the dump {self._copy} can't be read: {_one_line(done.stderr)}"
            raise StoreFormatError(msg)

    def check(self) -> None:
        """Refuse a database that has anything in it."""
        with _connect(self._url, "READ COMMITTED") as connection, _database_faults(self._url):
            self._refuse_used(connection)

    def restore(self) -> bool:
        """Fill it, or leave it empty. Always true: it never was there already.

        Raises:
            StoreBusyError: another restore fills it at this moment, or the server has gone silent.
            ConflictError: somebody has filled it meanwhile.
            MlflowIpfsError: ``pg_restore`` failed.
        """
        options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
        with _connect(self._url, "READ COMMITTED") as connection:
            with _database_faults(self._url):
                lock = sqlalchemy.text(f"SELECT pg_try_advisory_xact_lock({_RESTORE_LOCK})")
                if not connection.execute(lock).scalar_one():
                    msg = f"another restore is filling the database {_printable(self._url)} at this moment: wait for it or end it"
                    raise StoreBusyError(msg)
                _stay_idle(connection)
                self._refuse_used(connection)
            _run(self._program, [*options, str(self._copy)], self._url)
        return True

    def _refuse_used(self, connection: Connection) -> None:
        if connection.execute(sqlalchemy.text(_OWN_TABLES)).scalar_one():
            msg = (
                f"the database {_printable(self._url)} is not empty, and nothing is written over it: make a new one "
                "(createdb), or add --store-only if an earlier restore has filled it"
            )
            raise ConflictError(msg)


def _check_is_mlflow(connection: Connection, url: URL) -> None:
    with _database_faults(url):
        if sqlalchemy.inspect(connection).has_table("experiments"):
            return
    msg = f"{_printable(url)} has no tables of MLflow: name its database with --backend-store-uri"
    raise SettingsError(msg)


def _stay_idle(connection: Connection) -> None:
    """Let a transaction wait for a program that takes hours; some servers end what waits for minutes."""
    connection.execute(sqlalchemy.text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _connect(url: URL, isolation_level: str) -> Connection:
    try:
        engine: Engine = sqlalchemy.create_engine(
            url, isolation_level=isolation_level, connect_args=dict(_CONNECT_ARGUMENTS), poolclass=NullPool
        )
        return engine.connect()
    except ImportError as error:
        msg = f"the driver of {url.drivername!r} is not installed ({error})"
        raise SettingsError(msg) from error
    except SQLAlchemyError as error:
        raise _unreachable(url, error) from error


def _run(program: str, arguments: list[str], url: URL) -> None:
    """Run one of PostgreSQL's programs. The password is not on its command line, where everybody could read it."""
    options = {name: str(value) for name, value in _PROGRAM_ARGUMENTS.items() if name not in url.query}
    environ = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [program, "--no-password", f"--dbname={_target(url, options)}", *arguments]
    with subprocess.Popen(  # noqa: S603 - found on PATH by its fixed name, with no shell in between
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            said = _wait(process, url)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        msg = f"{program} failed on {_printable(url)}: {_one_line(said) or f'exit status {process.returncode}'}"
        raise MlflowIpfsError(msg)


def _wait(process: subprocess.Popen[str], url: URL) -> str:
    """Wait for a program for as long as the server answers: it may need hours. Returns what it said."""
    silent = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_LOOK_SECONDS)[1]
        silent = 0 if _answers(url) else silent + 1
        if silent >= _SILENT_LOOKS:
            msg = f"the server of {_printable(url)} has not answered for {silent * _LOOK_SECONDS:g} s: look at it, and try again"
            raise StoreBusyError(msg)


def _answers(url: URL) -> bool:
    """Whether a server says anything. No to one more connection, or to a password, is an answer, too."""
    command = [_find_program(_LOOK_PROGRAM), f"--dbname={_target(url, {})}", f"--timeout={_CONNECT_SECONDS}"]
    try:
        looked = subprocess.run(  # noqa: S603 - found on PATH by its fixed name, with no shell in between
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LOOK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return looked.returncode in _ANSWERED


def _target(url: URL, options: dict[str, str]) -> str:
    """How PostgreSQL's programs name a database, without the password."""
    # Made anew: `URL.set(password=None)` leaves the password where it is.
    target = sqlalchemy.URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return target.update_query_dict(options).render_as_string(hide_password=False)


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not on PATH: install PostgreSQL's client programs, of the server's version or newer"
        raise NotFoundError(msg)
    return found


def _printable(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


@contextmanager
def _database_faults(url: URL) -> Iterator[None]:
    """Turn a server's refusals into ours."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _unreachable(url, error) from error


def _unreachable(url: URL, error: SQLAlchemyError) -> SettingsError:
    return SettingsError(
        f"the database {_printable(url)} can't be used: {_one_line(getattr(error, 'orig', None) or error)}"
    )


def _one_line(said: object) -> str:
    """What a server or a program says, as part of a message."""
    return " ".join(str(said).split())[:_LONGEST_ANSWER]
