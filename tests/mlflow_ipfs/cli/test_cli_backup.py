"""Tests of `mlflow-ipfs backup` and `restore`: output, exit codes, and the effect of `kill -9`."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from support.clones import flip_byte

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

KILLS = 4


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URI of a database that resembles MLflow's."""
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("INSERT INTO experiments VALUES ('Default')")
        connection.commit()
    return f"ipfs+sqlite:///{path}"


def test_back_up_and_restore(cli: CommandLine, root: str, database: str, tmp_path: Path) -> None:
    text = cli("backup", tmp_path / "backup", "--backend-store-uri", database).stdout.decode()
    assert f"backed up  {tmp_path}/backup, as of 20" in text
    assert "database   mlflow.db" in text
    assert "copied the index and 1 file, 2.6 MB" in text
    [again] = cli("backup", tmp_path / "backup", "--backend-store-uri", database, "--json").records
    assert (again["copied_files"], again["files"], again["problems"]) == (0, 1, 0)
    target = tmp_path / "there"
    uri = f"sqlite:///{target}/mlflow.db"
    restored = cli("--store", target / "store", "restore", tmp_path / "backup", "--backend-store-uri", uri)
    assert f"restored   {target}/store and {uri}" in restored.stdout.decode()
    assert cli("--store", target / "store", "verify", root).code == 0
    with closing(sqlite3.connect(target / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    assert (
        cli("--store", target / "store", "restore", tmp_path / "backup", "--store-only", code=1).stderr.count("\n") == 1
    )


def test_artifacts_outside_the_store_are_listed_and_refused_until_they_are_left_out(
    cli: CommandLine, root: str, database: str, tmp_path: Path
) -> None:
    del root
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.executescript(
            "CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, artifact_uri TEXT);"
            "CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT);"
            "INSERT INTO runs VALUES ('r1', 3, 's3://bucket/3/r1/artifacts'), ('r2', 3, 's3://bucket/3/r2/artifacts');"
        )
    arguments = ("backup", tmp_path / "backup", "--backend-store-uri", database)
    refused = cli(*arguments, code=5)
    line = "2 runs in s3://bucket, for example r1, r2"
    assert f"outside    {line}" in refused.lines
    assert "--without-outside-artifacts" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert line not in refused.stderr, "it is listed once"
    assert not (tmp_path / "backup").exists()
    group = {"kind": "run", "place": "s3://bucket", "count": 2, "examples": ["r1", "r2"]}
    assert cli(*arguments, "--json", code=5).records[1] == {"outside": group}
    assert f"left out   {line}" in cli(*arguments, "--without-outside-artifacts").lines
    [record] = cli(*arguments, "--without-outside-artifacts", "--json").records
    assert record["outside_artifacts"][1] == group
    assert (
        f"left out   {line}"
        in cli(
            "--store",
            tmp_path / "there",
            "restore",
            tmp_path / "backup",
            "--backend-store-uri",
            f"sqlite:///{tmp_path}/to.db",
        ).lines
    )
    assert (
        "left out"
        not in cli("--store", tmp_path / "alone", "restore", tmp_path / "backup", "--store-only").stdout.decode()
    )


def test_a_restore_names_the_database_only_if_it_restores_one(
    cli: CommandLine, root: str, database: str, tmp_path: Path
) -> None:
    del root
    cli("backup", tmp_path / "backup", "--backend-store-uri", database)
    alone = cli("--store", tmp_path / "alone", "restore", tmp_path / "backup", "--store-only").stdout.decode()
    assert "database" not in alone
    uri = f"sqlite:///{tmp_path}/there.db"
    arguments = ("restore", tmp_path / "backup", "--backend-store-uri", uri)
    assert "database   mlflow.db" in cli("--store", tmp_path / "first", *arguments).lines
    lines = cli("--store", tmp_path / "again", *arguments).lines
    assert lines[0].startswith(f"restored   {tmp_path}/again, as of ")
    assert [line for line in lines if "database" in line] == [f"database   {uri} already exists with the same content"]


def test_the_backup_can_be_used_as_a_store(cli: CommandLine, root: str, tmp_path: Path) -> None:
    cli("backup", tmp_path / "backup", "--store-only")
    assert cli("--store", tmp_path / "backup/store", "verify", root).code == 0
    assert cli("--store", tmp_path / "backup/store", "scrub").code == 0


def test_a_backup_and_the_store_in_it_are_told_apart(cli: CommandLine, root: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    cli("backup", backup, "--store-only")
    assert f"name {backup}/store with --store" in cli("--store", backup, "verify", root, code=3).stderr
    outcome = cli("--store", tmp_path / "new", "restore", backup / "store", "--store-only", code=3)
    assert f"It is part of the backup {backup}: name that directory" in outcome.stderr
    assert not (tmp_path / "new").exists()


def test_a_file_is_not_a_store(cli: CommandLine, root: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    error = cli("--store", tmp_path / "file", "ls", root, code=3).stderr
    assert f"{tmp_path}/file is a file, not a store; name the directory of a store with --store" in error
    assert "add" not in error


def test_a_database_has_to_be_named_or_left_out(cli: CommandLine, root: str, database: str, tmp_path: Path) -> None:
    del root
    error = cli("backup", tmp_path / "backup", code=2).stderr
    assert "--backend-store-uri" in error
    assert "--store-only" in error
    assert (
        "as sqlite:///mlflow.db"
        in cli("backup", tmp_path / "backup", "--backend-store-uri", "mlflow.db", code=2).stderr
    )
    cli("backup", tmp_path / "backup", "--store-only", "--backend-store-uri", database, code=2)
    cli("backup", code=2)
    assert not (tmp_path / "backup").exists()


def test_refusals_have_the_exit_code_of_a_refusal(cli: CommandLine, root: str, tmp_path: Path) -> None:
    del root
    cli("backup", cli.store / "backup", "--store-only", code=5)
    cli("backup", tmp_path, "--store-only", code=5)
    cli("--store", tmp_path / "no", "backup", tmp_path / "backup", "--store-only", code=3)
    cli("restore", tmp_path / "no", "--store-only", code=3)


def test_damage_is_named_and_has_its_own_code(cli: CommandLine, root: str, tmp_path: Path) -> None:
    del root
    [path] = cli.store.glob("files/*/*")
    flip_byte(path)
    done = cli("backup", tmp_path / "backup", "--store-only", code=4)
    assert "everything else is backed up" in done.stderr
    [cid] = [line.split()[1] for line in done.lines if line.startswith("problem")]
    assert cli("verify", str(CID.parse(cid)), code=4).code == 4
    restored = cli("--store", tmp_path / "restored", "restore", tmp_path / "backup", "--store-only", code=4)
    assert "everything else is restored" in restored.stderr
    assert cli("backup", tmp_path / "backup", "--store-only", "--no-verify").code == 0


@pytest.mark.slow
def test_kill_9_at_several_moments(cli: CommandLine, root: str, tmp_path: Path) -> None:
    """After a kill at any moment, the earlier backup can be restored, and the next backup succeeds."""
    directory = tmp_path / "backup"
    cli("backup", directory, "--store-only")
    big = tmp_path / "big.bin"
    midway = 0
    for number in range(KILLS):
        big.write_bytes(os.urandom(12 << 20))
        cid = cli("add", "-q", big).cid
        process = subprocess.Popen(
            [*cli.command, "backup", directory, "--store-only"],
            env=cli.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_drafts(directory, process)
        time.sleep(0.02 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        midway += (directory / "next").exists()
        target = tmp_path / "restored"
        cli("--store", target, "restore", directory, "--store-only")
        assert cli("--store", target, "verify", root).code == 0
        shutil.rmtree(target)
        cli("backup", directory, "--store-only")
        assert cli("--store", directory / "store", "verify", cid).code == 0
    assert midway, "every kill came too late: this test shows nothing"


def wait_for_drafts(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has begun to copy, because a kill before that shows nothing."""
    deadline = time.monotonic() + 30
    while not (directory / "next").exists():
        if process.poll() is not None:
            return  # on a busy machine it may be done already; how many were killed midway is counted
        assert time.monotonic() < deadline, "the backup has not begun to copy within 30 s"
        time.sleep(0.001)


def test_small_content_in_the_index_is_counted(cli: CommandLine, tmp_path: Path) -> None:
    cli("add", "-", stdin=b"small")
    expected = "store      1 block, 5 B, in the index and 0 files; copied the index and 0 files, 0 B"
    assert expected in cli("backup", tmp_path / "backup", "--store-only").lines
    (record,) = cli("backup", tmp_path / "backup", "--store-only", "--json").records
    assert (record["blocks"], record["stored_bytes"], record["files"]) == (1, 5, 0)
    restored = cli("--store", tmp_path / "new", "restore", tmp_path / "backup", "--store-only")
    assert expected in restored.lines


def test_without_a_store_the_advice_fits(cli: CommandLine, database: str, tmp_path: Path) -> None:
    error = cli("backup", tmp_path / "backup", "--backend-store-uri", database, code=3).stderr
    assert f"no store found at {cli.store}, so mlflow-ipfs has nothing to back up" in error
    assert "`mlflow-ipfs adopt`" in error
    assert "mlflow-ipfs add`" not in error
    assert not (tmp_path / "backup").exists()


def test_a_target_that_exists_has_one_exit_code(cli: CommandLine, root: str, tmp_path: Path) -> None:
    cli("backup", tmp_path / "backup", "--store-only")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").touch()
    for command in (
        ("get", root, "-o", target),
        ("car", "export", root, "-o", target),
        ("backup", target, "--store-only"),
        ("--store", target, "restore", tmp_path / "backup", "--store-only"),
    ):
        cli(*command, code=1)
