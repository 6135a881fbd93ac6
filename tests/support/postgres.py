"""Temporary PostgreSQL server with its own directory and port, and with a password.

PostgreSQL refuses to run as root. If the tests run as root, the server runs as the unprivileged user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from support.not_run import not_run
from support.processes import find_free_port, read_tail, wait_until
from support.unprivileged import NOBODY, make_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Iterator

USER: Final = "tester"
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 20
_PROGRAMS: Final = ("initdb", "postgres", "pg_dump", "pg_restore")
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # the data is temporary
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "16MB",
}


def find_programs() -> Path | None:
    """Return the directory with the PostgreSQL programs. On Debian, the server programs are not on PATH."""
    on_path = shutil.which("initdb")
    directories = [Path(on_path).resolve().parent] if on_path else []
    directories += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda directory: directory.parent.name, reverse=True
    )
    return next(
        (directory for directory in directories if all((directory / name).exists() for name in _PROGRAMS)), None
    )


@dataclass
class PostgresServer:
    """PostgreSQL server.

    Attributes:
        programs: directory with the PostgreSQL programs.
        directory: directory of the server.
        port: TCP port on 127.0.0.1.
        password: password of the only user, which is a superuser.
    """

    programs: Path
    directory: Path
    port: int = field(default_factory=find_free_port)
    password: str = field(default_factory=lambda: f"secret-{secrets.token_hex(8)}")
    _process: subprocess.Popen[bytes] | None = None

    def initialize(self) -> None:
        """Make the data directory."""
        file = self.directory / "password"
        file.write_text(self.password)
        file.chmod(0o644)
        options = ["--no-sync", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={file}", "--encoding=UTF8"]
        done = subprocess.run(
            [self.programs / "initdb", *options, "--locale=C", "-D", self._data],
            **_unprivileged(),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self._data, "-p", str(self.port), *options],
                **_unprivileged(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, timeout_seconds=_START_SECONDS, what="PostgreSQL answers")

    def stop(self) -> None:
        """Stop the server at once, even if clients are connected. Do nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)

    def create_database(self, template: str = "template0") -> str:
        """Make a new database. Return its name."""
        name = f"test_{secrets.token_hex(4)}"
        self.ask("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def uri(self, database: str, *, password: str | None = None) -> str:
        """Return the URI of a database."""
        return f"postgresql://{USER}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def ask(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """Run one statement outside of a transaction. Return its rows."""
        with self.connect(database) as connection:
            result = connection.execute(sqlalchemy.text(query))
            return [tuple(row) for row in result] if result.returns_rows else []

    @contextlib.contextmanager
    def connect(self, database: str, isolation_level: Any = "AUTOCOMMIT") -> Iterator[sqlalchemy.Connection]:
        """Open a connection for the duration of a ``with`` block."""
        from mlflow_ipfs.binding.databases.drivers import name_driver  # imports MLflow, which takes seconds

        engine = sqlalchemy.create_engine(
            name_driver(self.uri(database)), isolation_level=isolation_level, poolclass=NullPool
        )
        with engine.connect() as connection:
            yield connection

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            msg = f"PostgreSQL ended with {self._process.returncode}:\n{read_tail(self._log)}"
            raise RuntimeError(msg)
        with contextlib.suppress(SQLAlchemyError):
            return self.ask("postgres", "SELECT 1") == [(1,)]
        return False


def run_postgres() -> Iterator[PostgresServer]:
    """Run a server for a fixture."""
    programs = find_programs()
    if programs is None:
        not_run("PostgreSQL's server is missing (initdb, postgres); on Debian and Ubuntu: apt install postgresql")
    for user in make_ordinary_user():
        server = PostgresServer(programs, user.directory)
        server.initialize()
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _unprivileged() -> dict[str, Any]:
    """Return the arguments of ``subprocess`` that run a command as the unprivileged user, if this process is root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
