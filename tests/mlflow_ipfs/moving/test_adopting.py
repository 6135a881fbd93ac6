"""Adoption of a SQLite database with plain files: nothing is lost, and everything is in the store afterwards."""

from __future__ import annotations

import io
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModelTag

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import close_shared_stores, shared_store
from support.stock_sites import ODD_NAMES, StockSite, artifacts_of, read_site, write

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

pytestmark = pytest.mark.slow


def test_a_dry_run_says_what_would_be_taken_in_and_creates_nothing(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    before = {path: path.stat().st_mtime_ns for path in site.directory.rglob("*")}
    done = cli("adopt", "--backend-store-uri", site.uri, "--dry-run")
    mlruns = site.directory / "mlruns"
    assert f"experiment  digits: 3 runs, 1 logged model, 1 trace; 12 files, 198 B from {mlruns}" in done.lines
    assert f"experiment  Default: 1 run; 1 file, 3 B from {mlruns}" in done.lines
    assert done.lines[-2:] == ["to take in  13 files, 201 B", "versions    3 to freeze"]
    assert not cli.store.exists()
    assert {path: path.stat().st_mtime_ns for path in site.directory.rglob("*")} == before


def test_everything_is_in_the_store_afterwards(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    before = read_site(site.uri)
    assert len(before) == 9
    cli("adopt", "--backend-store-uri", site.uri)
    shutil.rmtree(site.directory / "mlruns")
    assert read_site(f"ipfs+{site.uri}") == before
    assert cli("backup", site.directory / "backup", "--backend-store-uri", site.uri).code == 0  # nothing is outside


def test_locations_are_those_of_a_new_experiment(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    cli("adopt", "--backend-store-uri", site.uri)
    [(registry_id,)] = site.query("SELECT registry_id FROM mlflow_ipfs_registry")
    client = MlflowClient(tracking_uri=f"ipfs+{site.uri}")
    made = client.create_experiment("new")
    assert client.get_experiment(made).artifact_location == f"mfs://mlflow/{registry_id}/{made}"
    assert client.get_experiment("1").artifact_location == f"mfs://mlflow/{registry_id}/1"
    model = client.create_logged_model(made).artifact_location
    [(adopted,)] = site.query("SELECT artifact_location FROM logged_models WHERE experiment_id = 1")
    assert adopted.split("/m-")[0] == model.replace(f"/{made}/", "/1/").split("/m-")[0]
    [(source,)] = site.query("SELECT source FROM model_versions WHERE version = 3")
    assert source == client.get_run(source.split("/")[5]).info.artifact_uri + "/model"
    for run_id, uri in site.query("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = 1"):
        assert uri == f"mfs://mlflow/{registry_id}/1/{run_id}/artifacts"


def test_versions_are_frozen_and_tagged_as_new_ones(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    registry = site.client._get_registry_client().store
    registry.create_registered_model("prompt", [RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    registry.create_model_version("prompt", "dummy-source")
    done = cli("adopt", "--backend-store-uri", site.uri)
    assert "versions    3 frozen, 1 prompt tagged" in done.lines
    client = MlflowClient(tracking_uri=f"ipfs+{site.uri}", registry_uri=f"ipfs+{site.uri}")
    for adopted in client.search_model_versions("name = 'net'"):
        with mlflow_compat.using_database(f"ipfs+{site.uri}"):
            made = client.create_model_version("net", str(adopted.source), adopted.run_id, model_id=adopted.model_id)
        locations = [client.get_model_version_download_uri("net", one.version) for one in (adopted, made)]
        assert locations[0] == locations[1]
        assert adopted.tags == made.tags
        assert adopted.tags["ipfs.cid"] in locations[0]
    assert str(client.get_model_version_by_alias("net", "champion").version) == "2"
    tags = client.get_model_version("prompt", "1").tags
    assert tags["ipfs.frozen"] == "false"
    owners = [pin.owner for pin in shared_store().pins.list(owner_prefix="model-version")]
    assert len([owner for owner in owners if owner.startswith("model-version:")]) == 6
    assert not [owner for owner in owners if owner.startswith("model-version-pending:")]


@pytest.mark.parametrize("prefix", ["./mlruns", "mlruns", "file://{}/mlruns"])
def test_other_spellings_of_a_directory(
    cli: CommandLine, site: StockSite, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.add_run({"a b.txt": "a", "model/MLmodel": "flavors: {}"})
    site.add_version("net", f"{run.info.artifact_uri}/model", run.info.run_id)
    prefix = prefix.format(site.directory)
    for table, column in (
        ("runs", "artifact_uri"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
    ):
        site.query(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", f"{site.directory}/mlruns", prefix)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # relative locations are beside the database then
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    assert read_site(f"ipfs+{site.uri}") == {
        run.info.run_id: {"a b.txt": b"a", "model/MLmodel": b"flavors: {}"},
        "net/1": {"MLmodel": b"flavors: {}"},
    }


def test_a_second_run_finds_nothing_to_do(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    cli("adopt", "--backend-store-uri", site.uri)
    database = site.database.read_bytes()
    done = cli("adopt", "--backend-store-uri", site.uri, "--json")
    assert len(done.records) == 1
    assert {done.records[0][name] for name in ("files", "new_bytes", "versions", "prompts", "left_out")} == {0}
    assert site.database.read_bytes() == database


def test_odd_names_hidden_files_and_symlinks_are_taken_in(cli: CommandLine, site: StockSite, tmp_path: Path) -> None:
    run = site.add_run({name: name for name in ODD_NAMES})
    write(tmp_path / "elsewhere/big.bin", "big")
    (artifacts_of(run) / "link.bin").symlink_to(tmp_path / "elsewhere/big.bin")
    (artifacts_of(run) / "linked").symlink_to(tmp_path / "elsewhere")
    (artifacts_of(run) / "empty/below").mkdir(parents=True)
    done = cli("adopt", "--backend-store-uri", site.uri)
    assert "1 empty directory" in done.stderr
    expected = {name: name.encode() for name in ODD_NAMES} | {"link.bin": b"big", "linked/big.bin": b"big"}
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: expected}


def test_a_name_that_no_store_can_have_leaves_its_run_where_it_is(cli: CommandLine, site: StockSite) -> None:
    good = site.add_run({"a.txt": "a"})
    bad = site.add_run({"b.txt": "b", "@reserved": "c"})
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    [line] = [line for line in done.lines if line.startswith("left out")]
    assert f"run {bad.info.run_id}: " in line
    assert "1 item left out" in done.stderr
    client = MlflowClient(tracking_uri=f"ipfs+{site.uri}")
    assert client.get_run(bad.info.run_id).info.artifact_uri == bad.info.artifact_uri
    assert client.get_run(good.info.run_id).info.artifact_uri.startswith("mfs://")


def test_a_file_store_is_refused_with_advice(cli: CommandLine, site: StockSite) -> None:
    for uri in ("./mlruns", f"file://{site.directory}/mlruns"):
        assert "mlflow migrate-filestore" in cli("adopt", "--backend-store-uri", uri, code=2).stderr
    assert not cli.store.exists()


def test_only_a_database_is_adopted(cli: CommandLine) -> None:
    for uri in ("http://127.0.0.1:5000", "mysql://user:secret@host/mlflow"):
        message = cli("adopt", "--backend-store-uri", uri, code=2).stderr
        assert "only a SQLite or PostgreSQL database can be adopted" in message
        assert "secret" not in message
    assert "does not exist" in cli("adopt", "--backend-store-uri", "sqlite:////nowhere/m.db", code=3).stderr
    assert not cli.store.exists()


def test_a_directory_that_is_away_is_named_for_every_run_and_is_taken_in_when_it_is_back(
    cli: CommandLine, site: StockSite
) -> None:
    run = site.add_run({"a.txt": "a"})
    site.add_model(run)
    before = read_site(site.uri)
    away = site.directory / "mlruns"
    away.rename(site.directory / "elsewhere")
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert f"left out    run {run.info.run_id}: MLflow has logged files to" in done.stdout.decode()
    assert site.query("SELECT artifact_uri FROM runs") == [(run.info.artifact_uri,)]
    (site.directory / "elsewhere").rename(away)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == before


def test_files_that_a_program_writes_after_its_run_was_taken_in_are_found(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"}, status="RUNNING")
    cli("adopt", "--backend-store-uri", site.uri, "--include-running")
    write(artifacts_of(run) / "b.txt", "b")  # the program knows the former location
    assert "artifacts of 1 run" in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()
    assert "outside    1 run" in cli("backup", "backup", "--backend-store-uri", site.uri, code=5).stdout.decode()
    assert "1 run; 2 files, 2 B" in cli("adopt", "--backend-store-uri", site.uri).lines[0]
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"a", "b.txt": b"b"}}
    cli("backup", "backup", "--backend-store-uri", site.uri)
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    assert not (site.directory / "mlruns" / "0").exists()


def test_the_path_of_a_database_is_not_its_uri(cli: CommandLine, site: StockSite) -> None:
    assert f"write sqlite:///{site.database}" in cli("adopt", "--backend-store-uri", site.database, code=2).stderr


def test_what_was_taken_in_once_neither_comes_back_nor_replaces_anything(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"changed.txt": "old", "deleted.txt": "old"})
    cli("adopt", "--backend-store-uri", site.uri)
    [(location,)] = site.query("SELECT artifact_uri FROM runs")
    target = MfsPath.parse(location)
    shared_store().files.put_stream(target.join("changed.txt"), io.BytesIO(b"new"))
    shared_store().files.delete(target.join("deleted.txt"))
    for path in artifacts_of(run).iterdir():
        path.chmod(0o600)  # changes no content
    assert "outside the store" not in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()
    write(artifacts_of(run) / "later.txt", "later")
    assert "outside the store" in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"changed.txt": b"new", "later.txt": b"later"}}
    (artifacts_of(run) / "later.txt").unlink()
    assert "outside the store" not in cli("doctor", "--backend-store-uri", site.uri).stdout.decode()


def test_an_undone_eject_loses_nothing(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"weights.bin": "precious"})
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    cli("eject", "--backend-store-uri", site.uri, "--artifacts", site.directory / "out")
    shutil.rmtree(site.directory / "out")
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"weights.bin": b"precious"}}


def test_an_older_copy_of_the_database_loses_nothing(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"weights.bin": "precious"}, status="RUNNING")
    cli("adopt", "--backend-store-uri", site.uri, code=1)
    older = site.database.read_bytes()
    site.client.set_terminated(run.info.run_id)
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    site.database.write_bytes(older)
    site.client.set_terminated(run.info.run_id)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"weights.bin": b"precious"}}


def test_a_restored_copy_does_not_look_at_the_directories_of_the_original(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    cli("adopt", "--backend-store-uri", site.uri)
    cli("backup", "backup", "--backend-store-uri", site.uri)
    copy = f"sqlite:///{site.directory}/copy.db"
    cli("restore", "backup", "--backend-store-uri", copy, "--store", site.directory / "copied")
    write(artifacts_of(run) / "late.txt", "late")  # by a program of the original
    cli("adopt", "--backend-store-uri", copy, "--store", site.directory / "copied", "--remove-source")
    assert (artifacts_of(run) / "late.txt").exists()
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"a", "late.txt": b"late"}}


def test_a_lost_store_is_filled_again(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    before = read_site(site.uri)
    cli("adopt", "--backend-store-uri", site.uri)
    close_shared_stores()
    shutil.rmtree(cli.store)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == before
    assert len(list(shared_store().pins.list(owner_prefix="model-version:"))) == 3
    assert "unchanged   5, taken in earlier" in cli("adopt", "--backend-store-uri", site.uri).lines


def test_a_store_of_an_earlier_day_is_filled_again(cli: CommandLine, site: StockSite, tmp_path: Path) -> None:
    cli("add", write(tmp_path / "other.txt", "other"))
    shutil.copytree(cli.store, tmp_path / "earlier")
    site.fill()
    before = read_site(site.uri)
    cli("adopt", "--backend-store-uri", site.uri)
    close_shared_stores()
    shutil.rmtree(cli.store)
    shutil.copytree(tmp_path / "earlier", cli.store)
    doctor = cli("doctor", "--backend-store-uri", site.uri, code=1).stdout.decode()
    assert "artifacts of 3 runs, 1 logged model, 1 trace and 3 model versions are outside the store" in doctor
    eject = ("eject", "--backend-store-uri", site.uri, "--artifacts", tmp_path / "out", "--dry-run")
    assert sum(line.startswith("left") for line in cli(*eject, code=1).lines) == 8
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == before


def test_a_file_that_became_a_directory_is_taken_in(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a": "file", "b/c.txt": "directory"}, status="RUNNING")
    cli("adopt", "--backend-store-uri", site.uri, code=1)
    older = site.database.read_bytes()
    site.client.set_terminated(run.info.run_id)
    cli("adopt", "--backend-store-uri", site.uri)
    site.database.write_bytes(older)
    site.client.set_terminated(run.info.run_id)
    (artifacts_of(run) / "a").unlink()
    shutil.rmtree(artifacts_of(run) / "b")
    write(artifacts_of(run) / "a/c.txt", "directory")
    write(artifacts_of(run) / "b", "file")
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a/c.txt": b"directory", "b": b"file"}}


def test_no_store_is_created_for_an_adoption_that_cannot_start(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_run({"a.txt": "a"})
    adopt = ("adopt", "--backend-store-uri", site.uri)
    done = cli(*adopt, "--artifacts", site.directory, code=2)
    assert "created the store" not in done.stderr
    assert not cli.store.exists()
    with monkeypatch.context() as patch:
        patch.setattr("mlflow_ipfs.moving.database_access.LOCK_SECONDS", 0.1)
        with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert "database is locked" in cli(*adopt, code=1).stderr
    assert not cli.store.exists()


def test_the_table_of_an_earlier_version_gets_the_new_columns(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    cli("adopt", "--backend-store-uri", site.uri)
    for column in ("marks", "stored", "is_unfinished"):
        site.query(f"ALTER TABLE mlflow_ipfs_adopted DROP COLUMN {column}")
    write(artifacts_of(run) / "later.txt", "later")
    cli("adopt", "--backend-store-uri", site.uri, "--dry-run")
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"a", "later.txt": b"later"}}
