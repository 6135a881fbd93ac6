"""PostgreSQL's part of a backup: what counts as empty, and that nobody waits for a server that does not answer.

A driver is none of this project's own requirements, so what is asked goes through `psql` here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from mlflow_ipfs.binding import postgres_copies
from mlflow_ipfs.binding.postgres_copies import PostgresCopy
from mlflow_ipfs.errors import StoreBusyError
from support.processes import find_free_port
from support.unprivileged import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.unprivileged import OrdinaryUser

PROGRAMS = ("initdb", "pg_ctl", "psql")


@pytest.fixture
def ask(ordinary_user: OrdinaryUser) -> Iterator[Callable[[str], str]]:
    """Ask a fresh server, over a connection made as the backup makes it."""
    if not all(map(shutil.which, PROGRAMS)):
        pytest.skip(f"{', '.join(PROGRAMS)} are not all on PATH")
    folder, port = ordinary_user.folder, find_free_port()

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            user=NOBODY if os.geteuid() == 0 else None,  # the server refuses root
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    data = folder / "data"
    run("initdb", "--no-sync", "--auth=trust", "--username=me", "-D", data)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", options)
    arguments = " ".join(f"{name}={value}" for name, value in postgres_copies._CONNECT_ARGUMENTS.items())
    place = f"host=127.0.0.1 port={port} user=me dbname=postgres {arguments}"
    yield lambda query: run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", place, "-c", query)
    run("pg_ctl", "stop", "-D", data, "-m", "immediate")


def test_a_database_with_nothing_but_an_extension_counts_as_empty(ask: Callable[[str], str]) -> None:
    assert ask(postgres_copies._OWN_TABLES) == "0"
    if ask("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'") == "0":
        pytest.skip("this PostgreSQL has no extension to try it with")
    ask("CREATE EXTENSION pg_stat_statements")
    assert ask("SELECT count(*) FROM pg_class WHERE relname LIKE 'pg_stat_statements%'") != "0"
    assert ask(postgres_copies._OWN_TABLES) == "0"
    ask("CREATE VIEW mine AS SELECT 1")
    assert ask(postgres_copies._OWN_TABLES) == "1"


def test_the_limit_of_the_moment_ends_with_its_transaction(ask: Callable[[str], str]) -> None:
    limit = f"SET LOCAL statement_timeout = {postgres_copies._MOMENT_MILLISECONDS}"
    export = f"BEGIN ISOLATION LEVEL REPEATABLE READ; {limit}; SELECT pg_export_snapshot()"
    answer = ask(f"{export}; SHOW statement_timeout; ROLLBACK; SHOW statement_timeout").split("\n")
    assert answer[-2:] == ["5s", "0"]


class StalledConnection:
    """A connection to a server that has gone silent when it is asked for a snapshot."""

    invalidated = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = 0

    def execute(self, query: sqlalchemy.TextClause) -> None:
        self.asked.append(str(query))
        if "pg_export_snapshot" in str(query):
            raise OperationalError(str(query), None, TimeoutError("canceling statement due to statement timeout"))

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


def test_a_server_that_does_not_answer_is_tried_again_on_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[StalledConnection] = []

    def connect(*_: Any) -> StalledConnection:
        made.append(StalledConnection())
        return made[-1]

    class Inspector:
        def has_table(self, name: str) -> bool:
            return name == "experiments"

    monkeypatch.setattr(postgres_copies, "_connect", connect)
    monkeypatch.setattr(postgres_copies, "_find_program", str)
    monkeypatch.setattr(sqlalchemy, "inspect", lambda _: Inspector())
    copy = PostgresCopy(sqlalchemy.make_url("postgresql://me:secret@host/mlflow"), tmp_path / "mlflow.dump")
    with pytest.raises(StoreBusyError, match="did not answer in time") as caught:
        copy.begin()
    assert "secret" not in str(caught.value)
    assert made[0].asked[0].startswith("SET LOCAL statement_timeout"), "before what may hang"
    assert len(made) == 1, "not while everybody waits"
    copy.end()
    copy.end()
    assert [connection.closed for connection in made] == [1, 0]
    copy.close()
    assert [connection.closed for connection in made] == [1, 1]
