"""PostgreSQL servers that end, restart or hang during a backup."""

from __future__ import annotations

import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from mlflow_ipfs.backup import postgres_copies
from mlflow_ipfs.backup.backing_up import make_backup
from mlflow_ipfs.backup.postgres_copies import PostgresCopy
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    MlflowIpfsError,
    StoreBusyError,
)
from support.postgres_backups import WAIT_SECONDS, store, url
from support.processes import find_free_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

    from support.postgres import PostgresServer

__all__ = ["store", "url"]

ROWS = 200_000


def test_a_server_killed_in_the_midst_of_a_dump_is_a_clear_error_and_the_next_backup_ends_well(
    postgres: PostgresServer, store: ContentStore, url: URL, tmp_path: Path
) -> None:
    make_backup(store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
    former = (tmp_path / "backup/mlflow.dump").read_bytes()
    assert url.database is not None
    fill = f"CREATE TABLE filler AS SELECT md5(random()::text) || md5(random()::text) AS text FROM generate_series(1, {ROWS})"
    postgres.ask(url.database, fill)
    draft = tmp_path / "backup/next/mlflow.dump"
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(make_backup, store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
        try:
            wait_until(
                lambda: draft.exists() and draft.stat().st_size > 0, timeout_seconds=WAIT_SECONDS, what="a dump began"
            )
        finally:
            postgres.stop()
        try:
            with pytest.raises(
                MlflowIpfsError, match=r"pg_dump failed on postgresql://.*server closed|terminat"
            ) as caught:
                backup.result(WAIT_SECONDS)
        finally:
            postgres.start()
    assert "\n" not in str(caught.value)
    assert postgres.password not in str(caught.value)
    assert not (tmp_path / "backup/next").exists()
    assert (tmp_path / "backup/mlflow.dump").read_bytes() == former
    manifest, _ = make_backup(store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
    assert manifest.complete
    assert (tmp_path / "backup/mlflow.dump").stat().st_size > len(former)


@pytest.mark.parametrize("is_back", [True, False])
def test_a_server_that_restarts_at_the_moment_is_waited_for_within_the_limit(
    postgres: PostgresServer,
    url: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_back: bool,
) -> None:
    """The store's own retries go on; what is told in the end is that it is busy, not that a setting is wrong."""
    tries: list[bool] = []
    begin = PostgresCopy.begin

    def restart_and_begin(copy: PostgresCopy) -> None:
        tries.append(True)
        if len(tries) == 1:
            postgres.stop()
        if len(tries) == 3 and is_back:
            postgres.start()
        begin(copy)

    monkeypatch.setattr(PostgresCopy, "begin", restart_and_begin)
    limit_seconds = WAIT_SECONDS if is_back else 2
    try:
        with open_local_storage(tmp_path / "store", timeout_seconds=limit_seconds) as storage:
            if is_back:
                manifest, _ = make_backup(ContentStore(storage), tmp_path / "backup", url, timeout_seconds=1)
                assert manifest.complete
            else:
                with pytest.raises(StoreBusyError, match="try again"):
                    make_backup(ContentStore(storage), tmp_path / "backup", url, timeout_seconds=1)
    finally:
        if postgres._process is None:
            postgres.start()
    assert len(tries) >= 3


def test_a_server_that_has_gone_silent_is_not_waited_for_for_ever(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is open and nothing comes: a stopped machine looks like that."""
    monkeypatch.setattr(postgres_copies, "_CHECK_SECONDS", 0.05)
    looks: list[bool] = []

    def answers(_: URL) -> bool:
        looks.append(len(looks) == 1)
        return looks[-1]

    monkeypatch.setattr(postgres_copies, "_answers", answers)
    with pytest.raises(StoreBusyError, match="has not answered for 0.25 s"):
        run_sleeper(url)
    assert looks == [False, True, False, False, False, False, False]


def test_a_server_that_lets_nobody_in_has_answered(postgres: PostgresServer, url: URL) -> None:
    """All its connections are taken, or the password is another one by now, for the hours that a dump goes on."""
    assert postgres_copies._answers(url)
    assert postgres_copies._answers(url.set(password="changed-meanwhile"))
    with ExitStack() as stack:
        with suppress(OperationalError):
            for _ in range(200):
                stack.enter_context(postgres.connect("postgres"))
        with pytest.raises(OperationalError, match="too many clients"):
            postgres.ask("postgres", "SELECT 1")
        assert postgres_copies._answers(url)


def test_no_server_and_one_that_is_stopped_have_not_answered(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copies, "_CONNECT_SECONDS", 2)  # the least that libpq takes
    assert not postgres_copies._answers(url.set(port=find_free_port()))
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        silent = url.set(port=stopped.getsockname()[1])
        assert not postgres_copies._answers(silent)
        monkeypatch.setattr(postgres_copies, "_CHECK_SECONDS", 0.1)  # nor if the check itself hangs
        assert not postgres_copies._answers(silent)


def run_sleeper(url: URL) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    with subprocess.Popen([sleep, "100"], stderr=subprocess.PIPE, text=True) as process:
        try:
            postgres_copies._wait(process, url)
        finally:
            process.kill()


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
