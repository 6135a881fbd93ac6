"""PostgreSQL's part of a backup: what is refused, what a failure leaves, and that nobody waits for who does not answer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from mlflow_ipfs.backup import postgres_copies
from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.backup.database_copies import find_database
from mlflow_ipfs.backup.postgres_copies import PostgresCopy, PostgresRestore
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    SettingsError,
    StoreBusyError,
    StoreFormatError,
)
from support.processes import find_free_port, wait_until
from support.storages import publish_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from support.postgres import PostgresServer

WAIT_SECONDS = 60
ROWS = 200_000


@pytest.fixture
def url(postgres: PostgresServer) -> URL:
    """A database with a table that MLflow has."""
    name = postgres.create_database()
    postgres.ask(name, "CREATE TABLE experiments (number INTEGER)")
    postgres.ask(name, "INSERT INTO experiments VALUES (7)")
    return find_database(postgres.uri(name), {})


@pytest.fixture
def empty(postgres: PostgresServer) -> URL:
    return find_database(postgres.uri(postgres.create_database()), {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with open_local_storage(tmp_path / "store", timeout_seconds=WAIT_SECONDS) as storage:
        publish_file(storage, os.urandom(20_000))
        yield ContentStore(storage)


def copy_to(path: Path, url: URL) -> Path:
    with closing(PostgresCopy(url, path)) as copy:
        copy.begin()
        copy.copy_after_snapshot()
    return path


def numbers(postgres: PostgresServer, url: URL) -> list[tuple[Any, ...]]:
    assert url.database is not None
    return postgres.ask(url.database, "SELECT number FROM experiments")


pytestmark = pytest.mark.postgres


def test_a_dump_shows_the_moment_at_which_it_began(
    postgres: PostgresServer, url: URL, empty: URL, tmp_path: Path
) -> None:
    assert url.database is not None
    with closing(PostgresCopy(url, tmp_path / "mlflow.dump")) as copy:
        copy.begin()
        postgres.ask(url.database, "UPDATE experiments SET number = 8")
        copy.copy_after_snapshot()
        copy.end()
    assert (tmp_path / "mlflow.dump").stat().st_mode & 0o077 == 0, "others may not read it"
    PostgresRestore(empty, tmp_path / "mlflow.dump").restore()
    assert numbers(postgres, empty) == [(7,)]
    assert numbers(postgres, url) == [(8,)]


def test_a_database_with_nothing_but_an_extension_counts_as_empty(postgres: PostgresServer) -> None:
    name = postgres.create_database()
    count = postgres_copies._OWN_TABLES
    assert postgres.ask(name, count) == [(0,)]
    extension = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'"
    if postgres.ask(name, extension) == [(1,)]:  # Debian has them in the server's package
        postgres.ask(name, "CREATE EXTENSION pg_stat_statements")
        found = postgres.ask(name, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg_stat_statements%'")
        assert found != [(0,)]
        assert postgres.ask(name, count) == [(0,)]
    postgres.ask(name, "CREATE VIEW mine AS SELECT 1")
    assert postgres.ask(name, count) == [(1,)]


def test_the_limit_of_the_moment_ends_with_its_transaction(url: URL, tmp_path: Path) -> None:
    with closing(PostgresCopy(url, tmp_path / "mlflow.dump")) as copy:
        show = sqlalchemy.text("SHOW statement_timeout")
        copy.begin()
        assert copy._connection.execute(show).scalar_one() == "5s"
        copy.end()
        assert copy._connection.execute(show).scalar_one() == "0"


def test_a_server_that_ends_what_waits_does_not_end_a_backup(
    postgres: PostgresServer, url: URL, empty: URL, tmp_path: Path
) -> None:
    """Between the moment and the dump a store of a million files gets its links."""
    assert url.database is not None
    postgres.ask("postgres", f"ALTER DATABASE {url.database} SET idle_in_transaction_session_timeout = '100ms'")
    with closing(PostgresCopy(url, tmp_path / "mlflow.dump")) as copy:
        copy.begin()
        threading.Event().wait(0.4)
        copy.copy_after_snapshot()
    PostgresRestore(empty, tmp_path / "mlflow.dump").restore()
    assert numbers(postgres, empty) == [(7,)]


def test_no_server_and_a_wrong_password_are_told_before_anything_is_made(
    postgres: PostgresServer, store: ContentStore, url: URL, tmp_path: Path
) -> None:
    wrong = "wrong-secret"
    assert url.database is not None
    refused = {
        "Connection refused": url.set(port=find_free_port()),
        "authentication failed": url.set(password=wrong),
        "does not exist": url.set(database="nowhere"),
        "does not have MLflow's tables": url.set(database="postgres"),
    }
    for reason, database in refused.items():
        with pytest.raises(SettingsError, match=reason) as caught:
            make_backup(store, tmp_path / "backup", database, timeout_seconds=1)
        assert wrong not in str(caught.value)
        assert postgres.password not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("form", ["{user}:{password}@{place}/{name}", "{user}@{place}/{name}?password={password}"])
def test_a_password_is_on_no_command_line_and_in_no_message(
    postgres: PostgresServer, url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A `pg_dump` that notes what others would see of it, and fails."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/pg_dump"
    noted = tmp_path / "noted"
    program.write_text(f'#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline > {noted}\necho no >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    place = f"127.0.0.1:{postgres.port}"
    text = form.format(user=url.username, password=postgres.password, place=place, name=url.database)
    named = find_database(f"ipfs+postgresql://{text}", {})
    with pytest.raises(MlflowIpfsError, match="failed on .*: no") as caught:
        copy_to(tmp_path / "mlflow.dump", named)
    assert str(url.database) in noted.read_text()
    assert postgres.password not in noted.read_text()
    assert postgres.password not in str(caught.value)
    assert postgres.password not in named.render_as_string(hide_password=True)


def test_a_key_with_a_password_is_refused() -> None:
    with pytest.raises(SettingsError, match="sslpassword") as caught:
        find_database("postgresql://me@host/mlflow?sslpassword=secret", {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("present", [(), ("pg_dump", "pg_restore")])
@pytest.mark.parametrize("program", ["pg_dump", "pg_restore"])
def test_without_its_programs_nothing_is_made(
    postgres: PostgresServer,
    store: ContentStore,
    url: URL,
    empty: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    present: tuple[str, ...],
) -> None:
    del postgres
    make_backup(store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
    (tmp_path / "bin").mkdir()
    for name in present:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    attempts: dict[str, Callable[[], object]] = {
        "pg_dump": lambda: make_backup(store, tmp_path / "other", url, timeout_seconds=1),
        "pg_restore": lambda: restore_backup(tmp_path / "backup", tmp_path / "other", empty),
    }
    missing = "pg_isready" if program in present else program
    with pytest.raises(NotFoundError, match=f"{missing} is not on PATH"):
        attempts[program]()
    assert not (tmp_path / "other").exists()


def test_nothing_is_restored_into_a_database_that_has_something(
    postgres: PostgresServer, store: ContentStore, url: URL, empty: URL, tmp_path: Path
) -> None:
    make_backup(store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
    assert empty.database is not None
    postgres.ask(empty.database, "CREATE TABLE mine (number INTEGER)")
    with pytest.raises(ConflictError, match="is not empty"):
        restore_backup(tmp_path / "backup", tmp_path / "there", empty)
    assert not (tmp_path / "there").exists()
    postgres.ask(empty.database, "DROP TABLE mine")
    restore_backup(tmp_path / "backup", tmp_path / "there", empty)
    assert numbers(postgres, empty) == [(7,)]


def test_a_database_filled_meanwhile_is_left_as_it_is(
    postgres: PostgresServer, url: URL, empty: URL, tmp_path: Path
) -> None:
    restore = PostgresRestore(empty, copy_to(tmp_path / "mlflow.dump", url))
    restore.check()
    assert empty.database is not None
    postgres.ask(empty.database, "CREATE TABLE mine (number INTEGER)")  # while the store was being copied
    with pytest.raises(ConflictError, match="is not empty"):
        restore.restore()
    assert postgres.ask(empty.database, postgres_copies._OWN_TABLES) == [(1,)]


def test_two_restores_into_one_database_never_mix(
    postgres: PostgresServer, url: URL, empty: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restores = [PostgresRestore(empty, copy_to(tmp_path / f"{number}.dump", url)) for number in range(2)]
    has_begun, may_go_on = threading.Event(), threading.Event()
    run = postgres_copies._run

    def wait_and_run(*arguments: Any) -> None:
        has_begun.set()
        assert may_go_on.wait(WAIT_SECONDS)
        run(*arguments)

    monkeypatch.setattr(postgres_copies, "_run", wait_and_run)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(restores[0].restore)
        try:
            assert has_begun.wait(WAIT_SECONDS)
            with pytest.raises(StoreBusyError, match="another restore is filling"):
                restores[1].restore()
        finally:
            may_go_on.set()
        first.result(WAIT_SECONDS)
    with pytest.raises(ConflictError):
        restores[1].restore()
    assert numbers(postgres, empty) == [(7,)]


@pytest.mark.parametrize("kept_bytes", [0, 1000, -100])
def test_a_damaged_dump_leaves_the_database_empty_and_no_store(
    postgres: PostgresServer, store: ContentStore, url: URL, empty: URL, tmp_path: Path, kept_bytes: int
) -> None:
    assert url.database is not None
    postgres.ask(url.database, "INSERT INTO experiments SELECT (random() * 1e9)::int FROM generate_series(1, 10000)")
    make_backup(store, tmp_path / "backup", url, timeout_seconds=WAIT_SECONDS)
    dump = tmp_path / "backup/mlflow.dump"
    dump.write_bytes(dump.read_bytes()[:kept_bytes])
    with pytest.raises(MlflowIpfsError, match="pg_restore failed|cannot be read") as caught:
        restore_backup(tmp_path / "backup", tmp_path / "there", empty)
    if kept_bytes == 0:
        assert isinstance(caught.value, StoreFormatError)
        assert not (tmp_path / "there").exists()
    assert not (tmp_path / "there/format.json").exists()
    assert empty.database is not None
    assert postgres.ask(empty.database, postgres_copies._OWN_TABLES) == [(0,)]


def test_a_dump_that_nothing_comes_of_is_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: URL
) -> None:
    """A network's directory whose server is away looks like that, and a pipe."""
    monkeypatch.setattr(postgres_copies, "_CHECK_SECONDS", 0.3)
    dump = tmp_path / "mlflow.dump"
    os.mkfifo(dump)
    with pytest.raises(StoreBusyError, match=r"mlflow.dump was not read within 0.3 s"):
        PostgresRestore(url, dump).check_copy()


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
