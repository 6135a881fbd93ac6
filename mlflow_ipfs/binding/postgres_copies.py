"""PostgreSQL's own programs, told which state to copy: ``pg_dump --snapshot`` and ``pg_restore``.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import sqlalchemy
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.errors import ConflictError, MlflowIpfsError, NotFoundError, SettingsError, StoreBusyError

if TYPE_CHECKING:
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
        NotFoundError: there is no ``pg_dump``.
        SettingsError: the database can't be reached, or has no tables of MLflow's.
    """

    file_name: Final = "mlflow.dump"

    def __init__(self, url: URL, destination: Path) -> None:
        self._program = _find_program("pg_dump")
        self._url, self._destination = url, destination
        self._snapshot = ""
        self._is_lost = False  # the connection
        # Connected before the moment: a handshake takes longer than everybody should have to wait.
        self._connection: Connection = _connect(url, "REPEATABLE READ")
        if not sqlalchemy.inspect(self._connection).has_table("experiments"):
            self.close()
            msg = f"{_printable(url)} has no tables of MLflow: name its database with --backend-store-uri"
            raise SettingsError(msg)
        self.end()

    def begin(self) -> None:
        """Start a transaction, and let others see what it sees.

        Raises:
            StoreBusyError: the server didn't answer in time.
            SettingsError: it refuses.
        """
        try:
            # Not among the connection's options: a pooler refuses these. ``pg_dump`` has a connection of its own.
            self._connection.execute(sqlalchemy.text(f"SET LOCAL statement_timeout = {_MOMENT_MILLISECONDS}"))
            self._snapshot = str(self._connection.execute(sqlalchemy.text("SELECT pg_export_snapshot()")).scalar_one())
        except OperationalError as error:
            self._is_lost = self._connection.invalidated
            msg = f"the database {_printable(self._url)} did not answer in time ({error.orig}); try again"
            raise StoreBusyError(msg) from error
        except SQLAlchemyError as error:
            raise _unreachable(self._url, error) from error

    def copy_at_once(self) -> None:
        """Nothing: nobody waits."""

    def copy_at_leisure(self) -> None:
        """Dump what the transaction sees. ``pg_dump`` syncs the file."""
        self._destination.touch(mode=0o600)  # private from the start
        options = ["--format=custom", f"--snapshot={self._snapshot}", f"--file={self._destination}"]
        _run(self._program, [*options, f"--lock-wait-timeout={_LOCK_MILLISECONDS}"], self._url)

    def end(self) -> None:
        """End the transaction. A connection that was lost is made anew, while nobody waits for it."""
        with suppress(SQLAlchemyError):  # lost while the dump went on, which had a connection of its own
            self._connection.rollback()
        if self._is_lost:
            self._is_lost = False
            self.close()
            self._connection = _connect(self._url, "REPEATABLE READ")

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(SQLAlchemyError):
            self._connection.close()


class PostgresRestore:
    """Fills an empty database, in one transaction.

    Args:
        url: the database.
        copy: the dump.
    """

    def __init__(self, url: URL, copy: Path) -> None:
        self._url, self._copy = url, copy
        self._program = _find_program("pg_restore")

    def check(self) -> None:
        """Refuse a database that has anything in it."""
        with _connect(self._url, "READ COMMITTED") as connection:
            count = connection.execute(sqlalchemy.text(_OWN_TABLES)).scalar_one()
        if count:
            msg = (
                f"the database {_printable(self._url)} is not empty, and nothing is written over it: make a new one "
                "(createdb), or add --store-only if an earlier restore has filled it"
            )
            raise ConflictError(msg)

    def restore(self) -> None:
        """Fill it, or leave it empty."""
        options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
        _run(self._program, [*options, str(self._copy)], self._url)


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
    target = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environ = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [program, "--no-password", f"--dbname={target}", *arguments]
    # Found on PATH by its fixed name, with no shell in between.
    done = subprocess.run(  # noqa: S603 - see above
        command, env=environ, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        msg = f"{program} failed on {_printable(url)}: {done.stderr.strip() or f'exit status {done.returncode}'}"
        raise MlflowIpfsError(msg)


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not on PATH: install PostgreSQL's client programs, of the server's version or newer"
        raise NotFoundError(msg)
    return found


def _printable(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def _unreachable(url: URL, error: SQLAlchemyError) -> SettingsError:
    return SettingsError(f"the database {_printable(url)} can't be used: {getattr(error, 'orig', None) or error}")
