"""Faults during an ejection: nothing is lost, nothing is replaced, and nothing is left out without a word."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import sqlalchemy

from mlflow_ipfs.binding.locations import parse_mfs
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.moving import ejecting
from mlflow_ipfs.moving.converting import convert_locations
from mlflow_ipfs.moving.ejecting import EjectOptions, EjectReport, eject_artifacts
from mlflow_ipfs.moving.tree_writer import MutableCopy, TreeWriter, opened_writer
from mlflow_ipfs.opening import open_store
from support.command_line import CommandLine
from support.ejected_sites import all_locations, make_site, read_column, read_site
from support.mounted import mounted_tmpfs
from support.processes import fork_child
from support.registered_models import model_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from mlflow_ipfs.content.store import ContentStore

pytestmark = pytest.mark.slow

BIG = os.urandom(1 << 20)
MANY = 100_000


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


def eject(database: Path, store: ContentStore, **options: Any) -> EjectReport:
    url = sqlalchemy.make_url(f"sqlite:///{database}")
    return eject_artifacts(url, store, EjectOptions(database.parent / "plain", **options))


def make_run(client: MlflowClient, experiment: str = "0", **files: str) -> str:
    run_id = str(client.create_run(experiment).info.run_id)
    for name, text in files.items():
        client.log_text(run_id, text, f"{name}.txt")
    client.set_terminated(run_id)
    return run_id


def small_site(client: MlflowClient, directory: Path) -> dict[str, Any]:
    """A run whose model was overwritten after its registration, and a run without a model."""
    client.create_registered_model("m")
    run_id = str(client.create_run("0").info.run_id)
    for text in ("frozen", "overwritten"):
        client.log_artifacts(run_id, str(model_directory(directory / "model", text)), "model")
        if text == "frozen":
            client.create_model_version("m", f"runs:/{run_id}/model", run_id)
    client.set_terminated(run_id)
    return {
        f"run {run_id}": {"model/MLmodel": "flavors: {}\n", "model/weights.bin": "overwritten"},
        f"run {make_run(client, a='hello')}": {"a.txt": "hello"},
        "version 1": {"MLmodel": "flavors: {}\n", "weights.bin": "frozen"},
    }


class Killer:
    """Kills this process with SIGKILL at the n-th step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str) -> None:
        """Make the time before and after each call of a function a step."""
        function = getattr(owner, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            result = function(*arguments, **keywords)
            self.step()
            return result

        setattr(owner, name, watched)


def eject_until_killed(database: Path, step: int) -> None:
    killer = Killer(step)
    for owner, name in (
        (TreeWriter, "sync"),
        (ejecting, "write_locations"),
        (ejecting._Ejection, "_commit"),
        (Path, "replace"),
    ):
        killer.watch(owner, name)
    with open_store(create=False) as store:
        report = eject(database, store)
    assert report.left == {}


@pytest.mark.slow
def test_killed_at_each_step(client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path) -> None:
    site = small_site(client, tmp_path)
    versions = read_column(database, "SELECT storage_location FROM model_versions")
    original = database.read_bytes()
    step, code = 0, -signal.SIGKILL
    while code:
        step += 1
        database.write_bytes(original)
        shutil.rmtree(tmp_path / "plain", ignore_errors=True)
        child = fork_child(lambda: eject_until_killed(database, step))  # noqa: B023 - it runs at once
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, -signal.SIGKILL}
        for location in all_locations(database):  # former or new, all of them work
            if not location.startswith("runs:"):
                mlflow.artifacts.download_artifacts(location)
        if code:
            assert eject(database, store).left == {}
        assert read_site(database, site) == site
        assert not list((tmp_path / "plain").glob(".mlflow-ipfs*"))
    assert step > 20
    assert versions[0].startswith("mfs://")


def test_a_full_disk(cli: CommandLine, client: MlflowClient, database: Path, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(BIG)
    runs: list[str] = []
    for _ in range(3):
        runs.append(str(client.create_run(client.create_experiment(f"e{len(runs)}")).info.run_id))
        client.log_artifact(runs[-1], str(tmp_path / "big.bin"))
        client.set_terminated(runs[-1])
    arguments = ("eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", f"{tmp_path}/disk/plain")
    with mounted_tmpfs(tmp_path / "disk", size_bytes=len(BIG) * 5 // 2) as disk:
        done = cli(*arguments, code=1)
        assert "big.bin" in done.stderr
        assert "free" in done.stderr
        assert ".mlflow-ipfs" not in done.stderr, "internal names are not shown"
        moved = [
            uri.startswith("/") for uri in read_column(database, "SELECT artifact_uri FROM runs ORDER BY experiment_id")
        ]
        assert moved == [True, True, False]
        for location in read_column(database, "SELECT artifact_uri FROM runs"):  # former or new, all of them work
            assert Path(mlflow.artifacts.download_artifacts(location), "big.bin").read_bytes() == BIG
        disk.resize(len(BIG) * 5)
        cli(*arguments)
        assert (tmp_path / f"disk/plain/3/{runs[2]}/artifacts/big.bin").read_bytes() == BIG


def test_damaged_content_is_listed_and_the_rest_is_ejected(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(BIG)
    damaged, sound = str(client.create_run("0").info.run_id), make_run(client, a="hello")
    client.log_artifact(damaged, str(tmp_path / "big.bin"))
    client.set_terminated(damaged)
    entry = store.files.stat(parse_mfs(f"{client.get_run(damaged).info.artifact_uri}/big.bin"))
    assert isinstance(entry, MfsEntry)
    file = store.local_path(entry.cid)
    assert file is not None
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.seek(1000)
        opened.write(bytes(8))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # bit rot changes no time
    done = cli("eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", tmp_path / "plain", code=1)
    assert f"run {damaged}" in done.lines[0]
    assert len(done.lines) == 4
    assert read_site(database, {f"run {sound}": {}}) == {f"run {sound}": {"a.txt": "hello"}}
    [uri] = read_column(database, f"SELECT artifact_uri FROM runs WHERE run_uuid = '{damaged}'")
    assert uri.startswith("mfs://")
    assert not list((tmp_path / "plain").rglob("big.bin"))


def test_a_file_of_the_user_is_not_replaced(client: MlflowClient, store: ContentStore, database: Path) -> None:
    run_id = make_run(client, a="ours")
    file = database.parent / f"plain/0/{run_id}/artifacts/a.txt"
    file.parent.mkdir(parents=True)
    file.write_text("the user's")
    report = eject(database, store)
    assert list(report.left) == [f"run {run_id}"]
    assert "exists and has other content, so it was not replaced" in report.left[f"run {run_id}"]
    assert file.read_text() == "the user's"
    file.unlink()
    assert eject(database, store).left == {}
    assert file.read_text() == "ours"


def test_a_run_that_changes_meanwhile(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run(client, a="old", b="deleted", c="same")
    location = client.get_run(run_id).info.artifact_uri
    is_current = MutableCopy.is_current
    changed: list[bool] = []

    def change_first(copy: MutableCopy) -> bool:
        if not changed:
            changed.append(True)
            client.log_text(run_id, "new", "a.txt")
            client.log_text(run_id, "more", "d.txt")
            store.files.delete(copy.location.join("b.txt"))
        return is_current(copy)

    monkeypatch.setattr(MutableCopy, "is_current", change_first)
    assert eject(database, store).left == {}
    wanted = {f"run {run_id}": {"a.txt": "new", "c.txt": "same", "d.txt": "more"}}
    assert location.startswith("mfs://")
    assert read_site(database, wanted) == wanted


def test_a_run_that_changes_at_the_last_moment_is_listed(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run(client, a="old")
    location = client.get_run(run_id).info.artifact_uri
    sync = TreeWriter.sync

    def log_late(writer: TreeWriter) -> None:
        sync(writer)
        store.files.put_stream(parse_mfs(f"{location}/late.txt"), io.BytesIO(b"late"))

    monkeypatch.setattr(TreeWriter, "sync", log_late)
    report = eject(database, store)
    assert f"`mlflow-ipfs get {location}`" in report.left[f"run {run_id}"]


def test_a_run_that_is_deleted_meanwhile(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = make_run(client, a="gone"), make_run(client, a="kept")
    sync = TreeWriter.sync

    def delete_run(writer: TreeWriter) -> None:
        sync(writer)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM runs WHERE run_uuid = ?", (gone,))

    monkeypatch.setattr(TreeWriter, "sync", delete_run)
    assert eject(database, store).left == {}
    wanted = {f"run {kept}": {"a.txt": "kept"}}
    assert read_site(database, wanted) == wanted


def test_a_run_that_is_made_meanwhile(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(client, a="first")]
    sync = TreeWriter.sync

    def make_one(writer: TreeWriter) -> None:
        sync(writer)
        if len(runs) == 1:
            runs.append(make_run(client, a="second"))

    monkeypatch.setattr(TreeWriter, "sync", make_one)
    assert eject(database, store).left == {}
    wanted = {f"run {runs[0]}": {"a.txt": "first"}, f"run {runs[1]}": {"a.txt": "second"}}
    assert read_site(database, wanted) == wanted


def test_a_run_that_is_started_again_meanwhile_is_left(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run(client, a="old")
    sync = TreeWriter.sync

    def start_again(writer: TreeWriter) -> None:
        sync(writer)
        client.update_run(run_id, "RUNNING")

    monkeypatch.setattr(TreeWriter, "sync", start_again)
    assert "is not finished" in eject(database, store).left[f"run {run_id}"]
    assert read_column(database, "SELECT artifact_uri FROM runs")[0].startswith("mfs://")


def test_a_database_that_another_program_converts_meanwhile(
    client: MlflowClient, store: ContentStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = make_run(client, a="hello")
    url, sync = sqlalchemy.make_url(f"sqlite:///{database}"), TreeWriter.sync

    def convert(writer: TreeWriter) -> None:
        sync(writer)
        convert_locations(url, store, "server", destination=None, default_root=parse_mfs("mfs://mlflow"))

    with monkeypatch.context() as patch:
        patch.setattr(TreeWriter, "sync", convert)
        report = eject(database, store)
    assert report.left == dict.fromkeys(
        ("experiment 0", f"run {run_id}"), "another program changed its location meanwhile; eject again"
    )
    assert report.counts == {}
    assert eject(database, store).left == {}
    assert read_column(database, "SELECT artifact_uri FROM runs") == [f"mlflow-artifacts:/0/{run_id}/artifacts"]
    assert (database.parent / f"plain/0/{run_id}/artifacts/a.txt").read_text() == "hello"


def test_two_at_once(
    cli: CommandLine, client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    make_run(client, a="hello")
    with opened_writer(store, tmp_path / "plain", lambda _: None):
        done = cli("eject", "--backend-store-uri", f"sqlite:///{database}", "--artifacts", tmp_path / "plain", code=1)
    assert "ejects artifacts into" in done.stderr
    assert read_column(database, "SELECT artifact_uri FROM runs")[0].startswith("mfs://")


def test_a_database_that_another_program_locks(client: MlflowClient, store: ContentStore, database: Path) -> None:
    run_id = make_run(client, a="hello")
    with locked(database), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ejecting, "LOCK_SECONDS", 0.1)
        with pytest.raises(Exception, match="could not be changed .*locked.*Run the command again"):
            eject(database, store)
    assert eject(database, store).left == {}
    assert read_site(database, {f"run {run_id}": {}}) == {f"run {run_id}": {"a.txt": "hello"}}


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_content_that_is_not_in_the_store_is_listed(
    client: MlflowClient, store: ContentStore, database: Path, tmp_path: Path
) -> None:
    site = small_site(client, tmp_path)
    other = CommandLine(tmp_path / "other")
    other("add", __file__)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE model_versions SET storage_location = replace(storage_location, '@bafy', '@bafyno')")
        [(former,)] = connection.execute("SELECT storage_location FROM model_versions").fetchall()
    report = eject(database, store)
    assert list(report.left) in (["model version m/1"], ["model version m"])
    assert read_column(database, "SELECT storage_location FROM model_versions") == [former]
    runs = {name: files for name, files in site.items() if name.startswith("run")}
    assert read_site(database, runs) == runs


def test_a_database_of_an_older_mlflow(client: MlflowClient, store: ContentStore, database: Path) -> None:
    """Before MLflow 3 there were no logged models, and before 2.14 no traces."""
    run_id = make_run(client, a="hello")
    with closing(sqlite3.connect(database)) as connection, connection:
        for table in ("logged_model_tags", "logged_models", "trace_tags", "trace_info", "datasets"):
            connection.execute(f"DROP TABLE {table}")
    assert eject(database, store).left == {}
    [uri] = read_column(database, "SELECT artifact_uri FROM runs")
    assert Path(uri, "a.txt").read_text() == "hello"
    assert run_id in uri


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_artifacts(client: MlflowClient, store: ContentStore, database: Path) -> None:
    run_id = make_run(client, first="the same text")
    location = parse_mfs(client.get_run(run_id).info.artifact_uri)
    entry = store.files.stat(location.join("first.txt"))
    assert isinstance(entry, MfsEntry)
    for directory in range(100):  # logging them would take most of the time
        paths = [f"{location.path}/{directory}/{number}.txt" for number in range(MANY // 100)]
        with store.storage.publish(hold_existing=True) as publication:
            publication.commit(Changes(entries=[dataclasses.replace(entry, path=path) for path in paths]))
    report = eject(database, store)
    assert (report.left, report.files) == ({}, MANY + 1)
    [uri] = read_column(database, "SELECT artifact_uri FROM runs")
    assert sum(len(names) for _, _, names in os.walk(uri)) == MANY + 1
    assert Path(uri, "99/999.txt").read_text() == "the same text"


def test_another_database_on_the_same_store(
    client: MlflowClient, store: ContentStore, database: Path, empty_database: Path, tmp_path: Path
) -> None:
    site = make_site(client, store, tmp_path)
    other = Path(shutil.copy(empty_database, tmp_path / "other.db"))
    second = mlflow.MlflowClient(tracking_uri=f"ipfs+sqlite:///{other}", registry_uri=f"ipfs+sqlite:///{other}")
    run_id = make_run(second, a="theirs")
    before = all_locations(other)
    assert eject(database, store).left == {}
    assert all_locations(other) == before
    assert mlflow.artifacts.load_text(f"{second.get_run(run_id).info.artifact_uri}/a.txt") == "theirs"
    assert read_site(database, site) == site
