"""Adoption of a database whose artifacts are behind a server: the locations stay, and the bytes move."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import close_shared_stores, open_store, shared_store
from support.clients import run_client
from support.stock_sites import StockSite, after_each_import, before_each_import, read_site, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from conftest import StartServer
    from support.command_line import CommandLine

pytestmark = pytest.mark.slow


@pytest.fixture
def served(site: StockSite) -> StockSite:
    site.fill()
    site.move_behind_a_server()
    return site


def locations(site: StockSite) -> list[tuple[str, str]]:
    tables = ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")
    return [row for table, column in tables for row in site.query(f"SELECT rowid, {column} FROM {table}")]


def files_in_the_store(root: str = "mlflow", path: str = "") -> dict[str, bytes]:
    store = shared_store()
    found = store.files.walk(MfsPath(root, path))
    return {entry.path.removeprefix(path).lstrip("/"): store.open(entry.cid).read() for entry in found}


def files_on_disk(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_locations_stay_and_files_are_where_a_server_finds_them(cli: CommandLine, served: StockSite) -> None:
    before = locations(served)
    done = cli("adopt", "--backend-store-uri", served.uri)
    assert "--artifacts-destination mfs://mlflow`" in done.stderr
    assert f"ipfs+{served.uri}" in done.stderr
    assert locations(served) == before
    assert files_in_the_store() == files_on_disk(served.directory / "mlartifacts")
    for (location,) in served.query("SELECT storage_location FROM model_versions"):
        assert location.startswith("mlflow-artifacts:/1/")
        assert "/@bafy" in location


def test_artifacts_names_another_directory(cli: CommandLine, served: StockSite, tmp_path: Path) -> None:
    elsewhere = tmp_path / "some where"
    (served.directory / "mlartifacts").rename(elsewhere)
    assert "--artifacts" in cli("adopt", "--backend-store-uri", served.uri, code=2).stderr
    assert "/nowhere" in cli("adopt", "--backend-store-uri", served.uri, "--artifacts", "/nowhere", code=2).stderr
    done = cli("adopt", "--backend-store-uri", served.uri, "--artifacts", elsewhere)
    assert f"13 files, 201 B from {elsewhere}" in done.stdout.decode().replace("1 run; 1 file, 3 B", "13 files, 201 B")
    assert files_in_the_store() == files_on_disk(elsewhere)


def test_a_server_that_is_not_known_leaves_out_only_its_own_runs(cli: CommandLine, site: StockSite) -> None:
    plain, proxied = site.add_run({"a.txt": "a"}), site.add_run()
    site.query(
        "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/0/x/artifacts' WHERE run_uuid = ?", proxied.info.run_id
    )
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert (
        f"left out    run {proxied.info.run_id}: name the place of the server's artifacts with --artifacts"
        in done.lines
    )
    assert site.query("SELECT artifact_uri FROM runs WHERE artifact_uri LIKE 'mfs://%'")
    assert plain.info.run_id in files_in_the_store(path="").popitem()[0]


@pytest.mark.parametrize("uri", ["mlflow-artifacts:/", "mlflow-artifacts:/0/../1/artifacts", "mlflow-artifacts:/0/x?y"])
def test_a_malformed_location_is_named(cli: CommandLine, served: StockSite, uri: str) -> None:
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    served.query("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", uri, run_id)
    done = cli("adopt", "--backend-store-uri", served.uri, code=1)
    assert f"left out    run {run_id}: its location '{uri}' is malformed; correct it in the database" in done.lines
    assert len(files_in_the_store()) == 12


def test_the_next_pass_takes_in_what_the_server_has_written_since(cli: CommandLine, served: StockSite) -> None:
    cli("adopt", "--backend-store-uri", served.uri)
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    write(served.directory / f"mlartifacts/0/{run_id}/artifacts/later.txt", "later")
    done = cli("adopt", "--backend-store-uri", served.uri, "--dry-run")
    assert "experiment  Default: 1 run; 2 files, 8 B" in done.lines[0]
    done = cli("adopt", "--backend-store-uri", served.uri)
    assert done.lines[-1] == "unchanged   4, taken in earlier"
    assert files_in_the_store()[f"0/{run_id}/artifacts/later.txt"] == b"later"


def test_files_that_a_server_of_ours_wrote_since_are_kept(cli: CommandLine, served: StockSite) -> None:
    cli("adopt", "--backend-store-uri", served.uri)
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    path = f"0/{run_id}/artifacts/loss.txt"
    new = served.directory / "new.txt"
    new.write_text("0.1")
    shared_store().files.put_file(MfsPath("mlflow", path), new)
    cli("adopt", "--backend-store-uri", served.uri)
    assert files_in_the_store()[path] == b"0.1"
    write(served.directory / f"mlartifacts/0/{run_id}/artifacts/other.txt", "other")
    cli("adopt", "--backend-store-uri", served.uri)
    assert files_in_the_store(path=f"0/{run_id}/artifacts") == {"loss.txt": b"0.1", "other.txt": b"other"}


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Return a function that lets the clock of the store be wrong by a number of hours, in a ``with`` block."""
    now = time.time_ns

    @contextmanager
    def wrong_by(hours: int) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: now() + hours * 3600 * 10**9)
            yield

    return wrong_by


@pytest.mark.parametrize("is_new", [True, False])
def test_what_a_client_writes_in_the_moment_before_an_import_is_kept(
    cli: CommandLine,
    served: StockSite,
    monkeypatch: pytest.MonkeyPatch,
    clocks: Callable[[int], AbstractContextManager[None]],
    *,
    is_new: bool,
) -> None:
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    location = MfsPath("mlflow", f"0/{run_id}/artifacts/loss.txt")
    with open_store(create=True) as store:
        if not is_new:
            with clocks(-1):
                store.files.put_stream(location, io.BytesIO(b"an old upload"))

        def write_as_a_client() -> None:
            if not clients_writes:
                clients_writes.append(store.files.put_stream(location, io.BytesIO(b"acknowledged")))

        clients_writes: list[object] = []
        before_each_import(monkeypatch, write_as_a_client)
        done = cli("adopt", "--backend-store-uri", served.uri, code=1)
    found = files_in_the_store()
    assert found.pop(location.path) == b"acknowledged"
    expected = files_on_disk(served.directory / "mlartifacts")
    del expected[location.path]
    assert found == expected, "the other files of the batch are in the store"
    assert "loss.txt" in done.stderr + done.stdout.decode()


def test_what_a_client_writes_between_two_imports_is_kept(
    cli: CommandLine, served: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    path = f"0/{run_id}/artifacts/loss.txt"

    def write_on_both_sides() -> None:
        if not clients_writes:
            write(served.directory / "mlartifacts" / path, "changed on the old server")
            content = io.BytesIO(b"acknowledged")
            clients_writes.append(shared_store().files.put_stream(MfsPath("mlflow", path), content))

    clients_writes: list[object] = []
    after_each_import(monkeypatch, write_on_both_sides)
    cli("adopt", "--backend-store-uri", served.uri, code=1)
    assert files_in_the_store()[path] == b"acknowledged"


def test_a_newer_file_is_taken_in_although_the_clock_of_the_store_was_ahead(
    cli: CommandLine, site: StockSite, clocks: Callable[[int], AbstractContextManager[None]]
) -> None:
    run = site.add_run({"loss.txt": "0.5"})
    site.move_behind_a_server()
    with clocks(24):
        cli("adopt", "--backend-store-uri", site.uri)
    path = f"0/{run.info.run_id}/artifacts/loss.txt"
    write(site.directory / "mlartifacts" / path, "0.1")
    cli("adopt", "--backend-store-uri", site.uri)
    assert files_in_the_store()[path] == b"0.1"


def test_a_file_that_an_old_server_keeps_writing_is_taken_in_when_the_server_has_stopped(
    cli: CommandLine,
    site: StockSite,
    monkeypatch: pytest.MonkeyPatch,
    clocks: Callable[[int], AbstractContextManager[None]],
) -> None:
    run = site.add_run({"loss.txt": "0.5"})
    site.move_behind_a_server()
    path = f"0/{run.info.run_id}/artifacts/loss.txt"
    written = site.directory / "mlartifacts" / path
    cli("adopt", "--backend-store-uri", site.uri)
    write(written, "0.4")
    with clocks(24), monkeypatch.context() as patch:
        after_each_import(patch, lambda: write(written, os.urandom(4).hex()))
        assert "changed while it was read" in cli("adopt", "--backend-store-uri", site.uri, code=1).lines[0]
    write(written, "0.1")
    cli("adopt", "--backend-store-uri", site.uri)
    assert files_in_the_store()[path] == b"0.1"


def test_a_file_that_changed_on_both_sides_is_kept_on_both_although_the_clock_of_the_store_was_behind(
    cli: CommandLine, site: StockSite, clocks: Callable[[int], AbstractContextManager[None]]
) -> None:
    run = site.add_run({"loss.txt": "0.5"})
    site.move_behind_a_server()
    cli("adopt", "--backend-store-uri", site.uri)
    path = f"0/{run.info.run_id}/artifacts/loss.txt"
    old = write(site.directory / "mlartifacts" / path, "0.1")
    with clocks(-24):
        shared_store().files.put_stream(MfsPath("mlflow", path), io.BytesIO(b"0.2"))
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert (
        f"'{old}': the file in the store was changed, too, so that one was kept; rename the other one" in done.lines[0]
    )
    assert files_in_the_store()[path] == b"0.2"
    old.rename(old.with_name("other.txt"))
    cli("adopt", "--backend-store-uri", site.uri)
    assert files_in_the_store(path=path.rpartition("/")[0]) == {"loss.txt": b"0.2", "other.txt": b"0.1"}


def test_a_file_that_became_a_directory_on_the_old_server_is_named(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a": "file", "b/c.txt": "directory"})
    site.move_behind_a_server()
    cli("adopt", "--backend-store-uri", site.uri)
    directory = site.directory / f"mlartifacts/0/{run.info.run_id}/artifacts"
    (directory / "a").unlink()
    shutil.rmtree(directory / "b")
    write(directory / "a/c.txt", "directory")
    write(directory / "b", "file")
    [line] = [line for line in cli("adopt", "--backend-store-uri", site.uri, code=1).lines if "left out" in line]
    assert f"'{directory}/a/c.txt': 'a' is a file in the store, but a directory here, so it was left; rename" in line
    assert f"'{directory}/b': 'b' is a directory in the store, but a file here" in line
    (directory / "a").rename(directory / "a2")
    (directory / "b").rename(directory / "b2")
    cli("adopt", "--backend-store-uri", site.uri)
    expected = {"a": b"file", "b/c.txt": b"directory", "a2/c.txt": b"directory", "b2": b"file"}
    assert files_in_the_store(path=f"0/{run.info.run_id}/artifacts") == expected


def test_a_lost_store_is_filled_again(cli: CommandLine, served: StockSite) -> None:
    cli("adopt", "--backend-store-uri", served.uri)
    before = files_in_the_store()
    close_shared_stores()
    shutil.rmtree(cli.store)
    cli("adopt", "--backend-store-uri", served.uri)
    assert files_in_the_store() == before
    assert len(list(shared_store().pins.list(owner_prefix="model-version:"))) == 3


def test_databases_that_are_listed_do_not_include_the_files_behind_a_server(
    cli: CommandLine, served: StockSite
) -> None:
    cli("adopt", "--backend-store-uri", served.uri)
    of_database, of_server = cli("databases", "ls", "--json").records
    assert (of_database["files"], of_database["is_least"]) == (0, True)
    assert (of_server["registry_id"], of_server["uri"], of_server["files"]) == (None, "mfs://mlflow", 13)
    assert of_server["total_bytes"] == 189  # two files are equal
    first, second = cli("databases", "ls").lines
    assert "  at least " in first
    assert second.startswith("mfs://mlflow  13 files behind a server, of an unknown database  ")


def test_two_databases_on_one_store_share_no_path(
    cli: CommandLine, served: StockSite, empty_database: Path, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    shutil.copy(empty_database, tmp_path / "second/mlflow.db")
    second = StockSite(tmp_path / "second")
    run = second.add_run()
    with sqlite3.connect(second.database) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (f"mlflow-artifacts:/0/{run.info.run_id}/artifacts",))
    write(second.directory / f"mlartifacts/0/{run.info.run_id}/artifacts/a.txt", "second")
    cli("adopt", "--backend-store-uri", served.uri)
    first = files_in_the_store()
    artifacts = second.directory / "mlartifacts"
    done = cli("adopt", "--backend-store-uri", second.uri, "--artifacts", artifacts)
    [(registry_id,)] = second.query("SELECT registry_id FROM mlflow_ipfs_registry")
    assert f"--artifacts-destination mfs://mlflow/{registry_id}`" in done.stderr
    assert files_in_the_store(path=registry_id) == files_on_disk(artifacts)
    cli("adopt", "--backend-store-uri", second.uri, "--artifacts", artifacts)  # finds its files again
    assert files_in_the_store().items() - first.items() == {
        (f"{registry_id}/0/{run.info.run_id}/artifacts/a.txt", b"second")
    }
    listed = cli("databases", "ls", "--json").records
    assert {record["files"] for record in listed if record["registry_id"]} == {0, 1}


def test_an_unreadable_file_keeps_only_itself_out(cli: CommandLine, served: StockSite) -> None:
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    directory = served.directory / f"mlartifacts/0/{run_id}/artifacts"
    (directory / "dangling").symlink_to("nowhere")
    done = cli("adopt", "--backend-store-uri", served.uri, code=1)
    assert f"left out    run {run_id}: '{directory}/dangling' cannot be read" in done.lines[0]
    assert files_in_the_store()[f"0/{run_id}/artifacts/loss.txt"] == b"0.5"


FILL = """
import mlflow, sys
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
client.create_registered_model("net")
Path("model").mkdir()
Path("model/MLmodel").write_text("flavors: {}")
Path("model/weights.bin").write_bytes(b"1" * 3_000_000)
with mlflow.start_run() as run:
    mlflow.log_text("hello", "a dir/b c.txt")
    mlflow.log_artifacts("model", "model")
    model = client.create_logged_model("0", "net", run.info.run_id)
    client.log_model_artifacts(model.model_id, "model")
    model = client.finalize_logged_model(model.model_id, "READY")
client.create_model_version("net", f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
client.create_model_version("net", f"{run.info.artifact_uri}/model", run.info.run_id)
client.set_registered_model_alias("net", "champion", "2")
answer(run.info.run_id)
"""
READ = """
import hashlib, mlflow, sys
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[1])
def read(uri):
    top = Path(mlflow.artifacts.download_artifacts(uri))
    found = {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
    return {path: hashlib.sha256(data).hexdigest() for path, data in found.items()}
tags = mlflow.MlflowClient().get_model_version("net", "1").tags
run = mlflow.get_run(sys.argv[2]).info
answer([read(uri) for uri in (run.artifact_uri, "models:/net/1", "models:/net/2", "models:/net@champion")] + [tags])
"""


@pytest.mark.server
@pytest.mark.slow
def test_a_stock_server_is_adopted_and_served_to_stock_clients(
    cli: CommandLine, mlflow_server: StartServer, stock_python: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    stock = mlflow_server("--backend-store-uri", uri, python=stock_python, workers=1)
    run_id = run_client(FILL, stock.url, directory=tmp_path, python=stock_python)
    *before, tags = run_client(READ, stock.url, run_id, directory=tmp_path, python=stock_python)
    assert tags == {}
    done = cli.in_a_process("adopt", "--backend-store-uri", uri)  # while the server runs
    (tmp_path / "mlartifacts").rename(tmp_path / "old")
    arguments = done.stderr.partition("mlflow server ")[2].partition("`")[0].split()
    server = mlflow_server(*arguments, env={"MLFLOW_IPFS_STORE": f"local:{cli.store}"}, workers=1)
    *after, tags = run_client(READ, server.url, run_id, directory=tmp_path, python=stock_python)
    assert after == before
    assert tags["ipfs.size_bytes"] == "3000011"
    with open_store() as store:
        assert store.verify(tags["ipfs.cid"], against=tmp_path / "model").problems == []
    assert read_site(uri, server.url)[run_id].keys() == {"a dir/b c.txt", "model/MLmodel", "model/weights.bin"}


def test_a_run_that_has_not_ended_is_seen_on_the_new_server_and_what_is_written_later_is_found(
    cli: CommandLine, site: StockSite
) -> None:
    run = site.add_run({"a.txt": "a"}, status="RUNNING")
    site.move_behind_a_server()
    done = cli("adopt", "--backend-store-uri", site.uri)
    assert "1 entry of the database has not ended" in done.stderr
    path = f"0/{run.info.run_id}/artifacts"
    assert files_in_the_store(path=path) == {"a.txt": b"a"}
    write(site.directory / f"mlartifacts/{path}/b.txt", "b")  # by the old server
    shared_store().files.put_stream(MfsPath("mlflow", f"{path}/c.txt"), io.BytesIO(b"c"))  # by the new one
    for command in ("doctor", "backup backup"):
        code = 0 if command == "doctor" else 5
        assert "1 run" in cli(*command.split(), "--backend-store-uri", site.uri, code=code).stdout.decode()
    cli("adopt", "--backend-store-uri", site.uri)
    assert files_in_the_store(path=path) == {"a.txt": b"a", "b.txt": b"b", "c.txt": b"c"}
    cli("backup", "backup", "--backend-store-uri", site.uri)


def test_a_later_call_looks_where_the_first_one_was_told_to_look(cli: CommandLine, served: StockSite) -> None:
    elsewhere = served.directory / "elsewhere"
    (served.directory / "mlartifacts").rename(elsewhere)
    cli("adopt", "--backend-store-uri", served.uri, "--artifacts", elsewhere)
    [(run_id,)] = served.query("SELECT run_uuid FROM runs WHERE experiment_id = 0")
    write(elsewhere / f"0/{run_id}/artifacts/later.txt", "later")
    write(served.directory / f"mlartifacts/0/{run_id}/artifacts/other.txt", "of another server")
    cli("adopt", "--backend-store-uri", served.uri)
    assert files_in_the_store(path=f"0/{run_id}/artifacts") == {"loss.txt": b"0.5", "later.txt": b"later"}


def test_files_that_were_written_after_a_conversion_are_found(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    cli("adopt", "--backend-store-uri", site.uri)
    cli("databases", "convert", "--to", "server", "--backend-store-uri", site.uri)
    write(site.directory / f"mlruns/0/{run.info.run_id}/artifacts/b.txt", "b")
    assert "outside the store" in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()
    cli("adopt", "--backend-store-uri", site.uri)
    assert sorted(path.rpartition("/")[2] for path in files_in_the_store()) == ["a.txt", "b.txt"]
    assert "outside the store" not in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()


def test_a_directory_without_files_of_the_database_is_doubted(cli: CommandLine, served: StockSite) -> None:
    (served.directory / "wrong").mkdir()
    served.query("DELETE FROM model_versions")
    served.query("DELETE FROM logged_models")
    served.query("DELETE FROM trace_tags")
    done = cli("adopt", "--backend-store-uri", served.uri, "--artifacts", served.directory / "wrong")
    assert "if the server keeps its files elsewhere, name the place with --artifacts" in done.stderr
