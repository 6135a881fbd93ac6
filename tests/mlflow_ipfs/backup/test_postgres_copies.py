"""PostgreSQL's part of a backup: what is refused, what a failure leaves, and that nobody waits for who does not answer."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from mlflow_ipfs.backup import postgres_copies
from mlflow_ipfs.backup.backing_up import make_backup, restore_backup
from mlflow_ipfs.backup.postgres_copies import PostgresCopy, PostgresRestore
from mlflow_ipfs.binding.databases.named_database import find_database
from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    SettingsError,
    StoreBusyError,
    StoreFormatError,
)
from support.postgres_backups import WAIT_SECONDS, store, url
from support.processes import find_free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.store import ContentStore
    from support.postgres import PostgresServer

__all__ = ["store", "url"]

ROWS = 200_000


@pytest.fixture
def empty(postgres: PostgresServer) -> URL:
    return find_database(postgres.uri(postgres.create_database()), {})


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
