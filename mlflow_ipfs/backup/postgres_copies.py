"""Copies of a PostgreSQL database by PostgreSQL's own programs: ``pg_dump --snapshot`` and ``pg_restore``.

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

from mlflow_ipfs.binding.redaction import hide_secrets, show_url
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
_SNAPSHOT_MILLISECONDS: Final = 5000  # every publisher of the store waits meanwhile
_CONNECT_ARGUMENTS: Final = {  # of libpq
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 5,
    "tcp_user_timeout": _SNAPSHOT_MILLISECONDS,  # without an answer from the server; else the kernel waits for minutes
}
_PROGRAM_ARGUMENTS: Final = {  # no publisher waits for the programs, so they may survive a short network failure
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
}
_CHECK_SECONDS: Final = 60.0  # between two checks whether the server still answers
_MAX_FAILED_CHECKS: Final = 5  # in succession; then the program is killed
_CHECK_PROGRAM: Final = "pg_isready"
_ANSWERED: Final = {0, 1}  # the server accepts connections; it rejects them, as during its start
_MAX_OUTPUT_CHARACTERS: Final = 1000  # of a program's output, in an error message
_RESTORE_LOCK: Final = 0x4D495046  # "MIPF", among PostgreSQL's advisory locks
_LOCK_MILLISECONDS: Final = 60_000  # to wait for a program that changes a table, as `mlflow db upgrade` does
_OWN_TABLES: Final = """
    SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')  -- without indexes: those of an extension have no 'e' dependency
    AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
"""


class PostgresCopy:
    """Copier of a database to a dump of the state that one transaction sees. It blocks no other program.

    Args:
        url: the database.
        destination: the path of the dump.

    Raises:
        NotFoundError: ``pg_dump`` or ``pg_isready`` is not installed.
        SettingsError: the database cannot be reached, or does not have MLflow's tables.
    """

    file_name: Final = "mlflow.dump"

    def __init__(self, url: URL, destination: Path) -> None:
        self._program = _find_program("pg_dump")
        _find_program(_CHECK_PROGRAM)  # fail now if it is missing, not during the dump
        self._url, self._destination = url, destination
        self._snapshot = ""
        self._is_lost = False  # the connection
        # Connect before the snapshot: publishers would have to wait for the handshake.
        self._connection: Connection = _connect(url, "REPEATABLE READ")
        try:
            _check_is_mlflow(self._connection, url)
        except BaseException:
            self.close()
            raise
        self.end()

    def begin(self) -> None:
        """Begin a transaction, and export its snapshot to other connections.

        Raises:
            StoreBusyError: the server did not answer in time, or cannot be reached any more.
            SettingsError: the server rejects the request.
        """
        if self._is_lost:
            msg = f"the connection to the database {_printable(self._url)} was lost: check the server, and try again"
            raise StoreBusyError(msg)
        try:
            # Not set in the connection's options, because a pooler rejects these. `pg_dump` has its own connection.
            self._connection.execute(sqlalchemy.text(f"SET LOCAL statement_timeout = {_SNAPSHOT_MILLISECONDS}"))
            _stay_idle(self._connection)
            self._snapshot = str(self._connection.execute(sqlalchemy.text("SELECT pg_export_snapshot()")).scalar_one())
        except OperationalError as error:
            self._is_lost = self._connection.invalidated
            msg = f"the database {_printable(self._url)} did not answer in time ({_one_line(error.orig)}): try again"
            raise StoreBusyError(msg) from error
        except SQLAlchemyError as error:
            raise _unreachable(self._url, error) from error

    def copy_during_snapshot(self) -> None:
        """Do nothing: the dump does not need the store to be locked."""

    def copy_after_snapshot(self) -> None:
        """Dump the state that the transaction sees. ``pg_dump`` syncs the file.

        Raises:
            MlflowIpfsError: ``pg_dump`` failed.
            StoreBusyError: the server has stopped answering.
        """
        self._destination.touch(mode=0o600)  # readable by this user alone from the start
        options = ["--format=custom", f"--snapshot={self._snapshot}", f"--file={self._destination}"]
        _run(self._program, [*options, f"--lock-wait-timeout={_LOCK_MILLISECONDS}"], self._url)

    def end(self) -> None:
        """End the transaction. Replace a lost connection now, while no publisher waits for it.

        If the server cannot be reached, as during its restart, the next ``begin`` fails and the ``end`` after it
        tries to connect again.
        """
        with suppress(SQLAlchemyError):  # the connection was lost during the dump, which had its own connection
            self._connection.rollback()
        if self._is_lost:
            self.close()
            with suppress(SettingsError):
                self._connection = _connect(self._url, "REPEATABLE READ")
                self._is_lost = False

    def close(self) -> None:
        """Close the connection."""
        with suppress(SQLAlchemyError):
            self._connection.close()


class PostgresRestore:
    """Restore of a dump into an empty database, in one transaction.

    Args:
        url: the database.
        copy: the dump.

    Raises:
        NotFoundError: ``pg_restore`` or ``pg_isready`` is not installed.
    """

    def __init__(self, url: URL, copy: Path) -> None:
        self._url, self._copy = url, copy
        self._program = _find_program("pg_restore")
        _find_program(_CHECK_PROGRAM)  # fail now if it is missing, not during the restore

    def check_copy(self) -> None:
        """Raise if the file is not a dump. Its data are read only when they are restored.

        Raises:
            StoreFormatError: the file is not a dump, or a newer ``pg_dump`` made it.
            StoreBusyError: the file cannot be read in time.
        """
        try:
            done = subprocess.run(  # noqa: S603 - found on PATH by its fixed name, with no shell in between
                [self._program, "--list", self._copy],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_CHECK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"the dump {self._copy} was not read within {_CHECK_SECONDS:g} s: check its disk, and try again"
            raise StoreBusyError(msg) from error
        if done.returncode != 0:
            msg = (
                f"the dump {self._copy} cannot be read ({_one_line(done.stderr)}): use another backup, or a pg_restore "
                "that is as new as the pg_dump that made it"
            )
            raise StoreFormatError(msg)

    def check(self) -> None:
        """Raise if the database is not empty."""
        with _connect(self._url, "READ COMMITTED") as connection, _translate_database_errors(self._url):
            self._check_empty(connection)

    def restore(self) -> bool:
        """Fill the database, or leave it empty. Return True: a filled database is refused, even an equal one.

        Raises:
            StoreBusyError: another restore is filling the database, or the server has stopped answering.
            ConflictError: another program has filled the database meanwhile.
            MlflowIpfsError: ``pg_restore`` failed.
        """
        options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
        with _connect(self._url, "READ COMMITTED") as connection:
            with _translate_database_errors(self._url):
                lock = sqlalchemy.text(f"SELECT pg_try_advisory_xact_lock({_RESTORE_LOCK})")
                if not connection.execute(lock).scalar_one():
                    msg = f"another restore is filling the database {_printable(self._url)}: wait for it or end it"
                    raise StoreBusyError(msg)
                _stay_idle(connection)
                self._check_empty(connection)
            _run(self._program, [*options, str(self._copy)], self._url)
        return True

    def _check_empty(self, connection: Connection) -> None:
        if connection.execute(sqlalchemy.text(_OWN_TABLES)).scalar_one():
            msg = (
                f"the database {_printable(self._url)} is not empty and was not overwritten: create a new one "
                "(createdb), or add --store-only if an earlier restore has filled it"
            )
            raise ConflictError(msg)


def _check_is_mlflow(connection: Connection, url: URL) -> None:
    with _translate_database_errors(url):
        if sqlalchemy.inspect(connection).has_table("experiments"):
            return
    msg = f"{_printable(url)} does not have MLflow's tables: name MLflow's database with --backend-store-uri"
    raise SettingsError(msg)


def _stay_idle(connection: Connection) -> None:
    """Disable the server's timeout for idle transactions: this one waits for a program that may run for hours."""
    connection.execute(sqlalchemy.text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _connect(url: URL, isolation_level: str) -> Connection:
    try:
        engine: Engine = sqlalchemy.create_engine(
            url, isolation_level=isolation_level, connect_args=dict(_CONNECT_ARGUMENTS), poolclass=NullPool
        )
        return engine.connect()
    except ImportError as error:
        msg = f"the driver for {url.drivername!r} is not installed ({error}): install it"
        raise SettingsError(msg) from error
    except SQLAlchemyError as error:
        raise _unreachable(url, error) from error


def _run(program: str, arguments: list[str], url: URL) -> None:
    """Run one of PostgreSQL's programs. The password is not on its command line, which every user can read."""
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
            output = _wait(process, url)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        msg = f"{program} failed on {_printable(url)}: {_one_line(output) or f'exit status {process.returncode}'}"
        raise MlflowIpfsError(msg)


def _wait(process: subprocess.Popen[str], url: URL) -> str:
    """Wait for a program, possibly for hours, while the server answers. Return the program's error output."""
    failed_checks = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_CHECK_SECONDS)[1]
        failed_checks = 0 if _answers(url) else failed_checks + 1
        if failed_checks >= _MAX_FAILED_CHECKS:
            seconds = failed_checks * _CHECK_SECONDS
            msg = f"the server of {_printable(url)} has not answered for {seconds:g} s: check the server, and try again"
            raise StoreBusyError(msg)


def _answers(url: URL) -> bool:
    """Return whether a server answers. The rejection of a connection or of a password is an answer, too."""
    command = [_find_program(_CHECK_PROGRAM), f"--dbname={_target(url, {})}", f"--timeout={_CONNECT_SECONDS}"]
    try:
        done = subprocess.run(  # noqa: S603 - found on PATH by its fixed name, with no shell in between
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode in _ANSWERED


def _target(url: URL, options: dict[str, str]) -> str:
    """Return the URI of a database for PostgreSQL's programs, without the password."""
    # A new URL, because `URL.set(password=None)` keeps the password.
    target = sqlalchemy.URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return target.update_query_dict(options).render_as_string(hide_password=False)


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not on PATH: install PostgreSQL's client programs, of the server's version or newer"
        raise NotFoundError(msg)
    return found


def _printable(url: URL) -> str:
    return show_url(url.set(drivername="postgresql"))


@contextmanager
def _translate_database_errors(url: URL) -> Iterator[None]:
    """Translate SQLAlchemy's errors into a ``SettingsError``."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _unreachable(url, error) from error


def _unreachable(url: URL, error: SQLAlchemyError) -> SettingsError:
    reason = _one_line(getattr(error, "orig", None) or error)
    return SettingsError(
        f"the database {_printable(url)} cannot be used ({reason}): check the server and the database's URI"
    )


def _one_line(output: object) -> str:
    """Return the output of a server or a program as one line, for an error message."""
    return hide_secrets(" ".join(str(output).split()))[:_MAX_OUTPUT_CHARACTERS]
