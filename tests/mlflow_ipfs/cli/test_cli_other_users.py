"""Tests of stores that belong to another user, or contain files of another user."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.cli.errors import ExitCode
from mlflow_ipfs.content.system.access import group_name
from support.command_line import CommandLine, Outcome
from support.not_run import not_run
from support.unprivileged import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.unprivileged import OrdinaryUser

pytestmark = pytest.mark.slow


@pytest.fixture
def root() -> None:
    """Skip the test unless it runs as root, which alone can create files that another user cannot use."""
    if os.geteuid() != 0:
        not_run("only root makes files in a store that its owner cannot use")


@pytest.fixture(autouse=True)
def _own_settings(ordinary_user: OrdinaryUser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(ordinary_user.directory / "config"))


@pytest.fixture
def cli(ordinary_user: OrdinaryUser, tmp_path: Path) -> CommandLine:
    """Return the command, with a store to which the ordinary user has added the file `data`.

    All modules are imported before, because the ordinary user may not be able to read them.
    """
    warm = CommandLine(tmp_path / "warm")
    warm("add", "-q", __file__)
    for command in ("doctor", "gc", "scrub"):
        warm(command)
    cli = CommandLine(ordinary_user.directory / "store")
    (ordinary_user.directory / "data").write_bytes(bytes(300_000))
    (ordinary_user.directory / "data").chmod(0o644)
    ordinary_user.run(cli, "add", "-q", ordinary_user.directory / "data")
    return cli


def run(user: OrdinaryUser, cli: CommandLine, *arguments: str | Path, code: int = 0) -> Outcome:
    """Run the command as an ordinary user."""
    return user.run(lambda: cli(*arguments, code=code))


def access(user: OrdinaryUser, cli: CommandLine, *, code: int = 0, as_root: bool = False) -> dict[str, Any]:
    """Return the finding of ``doctor`` about the access to the store."""
    outcome = cli("doctor", "--json", code=code) if as_root else run(user, cli, "doctor", "--json", code=code)
    return next(record for record in outcome.records if record["topic"] == "access")


def test_doctor_reports_that_the_owner_can_access_everything(cli: CommandLine, ordinary_user: OrdinaryUser) -> None:
    found = access(ordinary_user, cli)
    assert (found["state"], found["unusable"]) == ("ok", [])


@pytest.mark.usefixtures("root")
def test_after_root_has_added_content_the_owner_can_still_use_the_store(
    cli: CommandLine, ordinary_user: OrdinaryUser
) -> None:
    other = ordinary_user.directory / "other"
    other.write_bytes(b"other" * 60_000)
    cid = cli("add", "-q", other).cid
    cli("gc")
    for arguments in (("verify", cid), ("scrub",), ("gc",), ("cat", cid), ("pin", "rm", cid), ("doctor",)):
        run(ordinary_user, cli, *arguments)
    assert access(ordinary_user, cli, as_root=True)["state"] == "ok"


def _other_file(directory: Path, number: int) -> Path:
    path = directory / f"other{number}"
    path.write_bytes(bytes([number]) * 300_000)
    return path


def leave(name: str) -> Callable[[Path], None]:
    """Return a function that leaves a file of root in a store, as earlier versions did."""

    def make(store: Path) -> None:
        path = store / name
        if name.endswith("/"):
            path.mkdir(mode=0o700)
        else:
            path.touch(mode=0o600)
            path.chmod(0o600)
        os.chown(path, 0, 0)

    return make


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "name",
    [
        "files/f9x/",
        "store.db",
        "store.db-wal",
        "store.db-shm",
        "sessions/1",
        "write.lock",
        "tmp/1/",
        "views/1/",
        "backup/1",
    ],
)
@pytest.mark.parametrize("as_root", [False, True])
def test_doctor_names_what_root_has_left_in_the_store(
    cli: CommandLine, ordinary_user: OrdinaryUser, name: str, as_root: bool
) -> None:
    leave(name)(cli.store)
    found = access(ordinary_user, cli, code=1, as_root=as_root)
    assert found["unusable"] == [str(cli.store / name)]
    assert f"{name.strip('/')} (owner root:root, mode 0" in found["text"]
    assert found["text"].endswith(f"chown -R nobody:{group_name(NOBODY)} {cli.store}`")


@pytest.mark.usefixtures("root")
def test_doctor_names_a_few_and_counts_the_rest(cli: CommandLine, ordinary_user: OrdinaryUser) -> None:
    for number in range(8):
        leave(f"backup/{number}")(cli.store)
    found = access(ordinary_user, cli, code=1)
    assert found["unusable_count"] == len(found["unusable"]) == 8
    assert "and 3 more" in found["text"]


@pytest.mark.usefixtures("root")
def test_what_is_in_a_directory_of_root_is_named_as_refused_not_as_damaged(
    cli: CommandLine, ordinary_user: OrdinaryUser
) -> None:
    cid = run(ordinary_user, cli, "pin", "ls", "--json").records[0]["cid"]
    (directory,) = (cli.store / "files").iterdir()
    os.chown(directory, 0, 0)
    for arguments in (("verify", cid), ("scrub",), ("cat", cid)):
        outcome = run(ordinary_user, cli, *arguments, code=ExitCode.REFUSED)
        assert f"{directory} (owner root:root, mode 0700)" in outcome.stderr
        assert "sudo chown -R" in outcome.stderr


def test_a_directory_that_this_user_may_not_enter(cli: CommandLine, ordinary_user: OrdinaryUser) -> None:
    def call() -> tuple[Outcome, Outcome]:
        cli.store.chmod(0)
        try:
            return cli("pin", "ls", code=ExitCode.REFUSED), cli("doctor", code=ExitCode.FAILED)
        finally:
            cli.store.chmod(0o700)

    listed, examined = ordinary_user.run(call)
    for text in (listed.stderr, examined.stdout.decode()):
        assert f"may not read or write {cli.store} (owner " in text
        assert f"chmod u+rwx {cli.store}`" in text


def test_doctor_reports_a_store_below_a_directory_that_this_user_may_not_enter(
    cli: CommandLine, ordinary_user: OrdinaryUser
) -> None:
    def call() -> Outcome:
        below = CommandLine(cli.store / "sub/store")
        cli.store.chmod(0)
        try:
            return below("doctor", "--json", code=ExitCode.FAILED)
        finally:
            cli.store.chmod(0o700)

    found = {record["topic"]: record for record in ordinary_user.run(call).records}
    assert found["store"]["state"] == "problem"
    assert str(cli.store) in found["store"]["text"]
    assert found["settings"]["state"] == found["MLflow"]["state"] == "ok", "the other checks still run"


@pytest.mark.usefixtures("root")
def test_a_store_of_root_asks_another_user_to_be_root(ordinary_user: OrdinaryUser) -> None:
    cli = CommandLine(ordinary_user.directory / "roots")
    cli.store.mkdir()
    cli("add", "-q", __file__)
    cli.store.chmod(0o755)
    outcome = run(ordinary_user, cli, "pin", "ls", code=ExitCode.REFUSED)
    assert "run the command as user root, the owner" in outcome.stderr


@pytest.mark.usefixtures("root")
def test_a_restore_by_root_into_a_directory_of_the_service_user_is_that_users(
    cli: CommandLine, ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    cli("backup", "--store-only", tmp_path / "backup")
    shutil.rmtree(cli.store)
    ordinary_user.run(cli.store.mkdir, 0o700)
    outcome = cli("restore", "--store-only", tmp_path / "backup")
    assert {path.lstat().st_uid for path in (cli.store, *cli.store.rglob("*"))} == {NOBODY}
    assert f"owner      nobody:{group_name(NOBODY)}" in outcome.lines
    assert access(ordinary_user, cli)["state"] == "ok"


@pytest.mark.usefixtures("root")
def test_a_backup_by_root_into_a_directory_of_the_service_user_can_be_continued_by_that_user(
    cli: CommandLine, ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    backup = ordinary_user.directory / "backup"
    run(ordinary_user, cli, "backup", "--store-only", backup)
    cli("add", "-q", _other_file(tmp_path, 1))
    cli("backup", "--store-only", backup)
    assert {path.lstat().st_uid for path in (backup, *backup.rglob("*"))} == {NOBODY}
    cli("add", "-q", _other_file(tmp_path, 2))
    run(ordinary_user, cli, "backup", "--store-only", backup)
    run(ordinary_user, CommandLine(backup / "store"), "scrub")


@pytest.mark.usefixtures("root")
def test_a_backup_that_root_makes_is_roots_alone(cli: CommandLine, ordinary_user: OrdinaryUser) -> None:
    backup = ordinary_user.directory / "backup"
    cli("backup", "--store-only", backup)
    assert {path.lstat().st_uid for path in (backup, *backup.rglob("*"))} == {0}
    assert backup.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("root")
def test_after_root_has_rebuilt_the_index_the_owner_can_use_the_store(
    cli: CommandLine, ordinary_user: OrdinaryUser
) -> None:
    (cli.store / "store.db").unlink()
    cli("doctor", "--rebuild")
    assert {path.lstat().st_uid for path in (cli.store, *cli.store.rglob("*"))} == {NOBODY}
    run(ordinary_user, cli, "scrub")


@pytest.mark.usefixtures("root")
def test_a_restore_by_root_to_a_new_location_reports_that_root_owns_it(
    cli: CommandLine, ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    cli("backup", "--store-only", tmp_path / "backup")
    target = CommandLine(tmp_path / "restored")
    outcome = target("restore", "--store-only", tmp_path / "backup")
    assert "owner      root:root" in outcome.lines
    assert f"chown -R USER:GROUP {target.store}" in outcome.stderr
    shutil.rmtree(target.store)
    target = CommandLine(ordinary_user.directory / "restored")
    assert (
        target("restore", "--store-only", "--json", tmp_path / "backup").records[-1]["owner"]
        == f"nobody:{group_name(NOBODY)}"
    )
