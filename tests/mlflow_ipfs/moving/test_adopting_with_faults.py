"""Faults during an adoption: every location in the database works at any time, and the next pass takes in the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.moving import adopting
from mlflow_ipfs.opening import open_store, shared_store
from support.mounted import mounted_tmpfs
from support.stock_sites import StockSite, after_each_import, artifacts_of, read_site, write

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities import Run

    from support.command_line import CommandLine

pytestmark = pytest.mark.slow


def location(site: StockSite, run: Run) -> str:
    [(uri,)] = site.query("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run.info.run_id)
    return str(uri)


def test_artifacts_of_a_server_are_named_only_for_a_server(cli: CommandLine, site: StockSite) -> None:
    site.add_run({"a.txt": "a"})
    assert (
        "leave --artifacts out"
        in cli("adopt", "--backend-store-uri", site.uri, "--artifacts", site.directory, code=2).stderr
    )


def test_a_running_run_is_left_for_a_later_pass(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"}, status="RUNNING")
    model = site.add_model(run)
    version = site.add_version("net", f"models:/{model.model_id}", run.info.run_id, model.model_id)
    site.add_version("net", f"runs:/{run.info.run_id}/model", run.info.run_id)
    for options in (["--dry-run"], []):
        text = cli("adopt", "--backend-store-uri", site.uri, *options, code=1).stdout.decode()
        assert f"run {run.info.run_id}: it has not ended" in text
        assert f"logged model {model.model_id}: it has not ended" in text
        assert f"model version {version}: its files are in logged model {model.model_id}, which was left out" in text
        assert f"model version net/2: its files are in run {run.info.run_id}, which was left out" in text
    site.query("DELETE FROM model_versions WHERE version = 2")
    assert location(site, run) == run.info.artifact_uri
    write(artifacts_of(run) / "b.txt", "b")
    site.client.set_terminated(run.info.run_id)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}")[run.info.run_id] == {"a.txt": b"a", "b.txt": b"b"}
    assert read_site(f"ipfs+{site.uri}")[version].keys() == {"MLmodel", "weights.bin"}


def test_a_run_that_is_resumed_meanwhile_is_left_for_a_later_pass(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.add_run({"a.txt": "a"})
    after_each_import(monkeypatch, lambda: site.query("UPDATE runs SET status = 'RUNNING'"))
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert f"run {run.info.run_id}: it has not ended" in done.stdout.decode()
    assert location(site, run) == run.info.artifact_uri


def test_running_runs_are_taken_in_on_request(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"}, status="RUNNING")
    cli("adopt", "--backend-store-uri", site.uri, "--include-running")
    assert location(site, run).startswith("mfs://")


def test_a_file_that_changes_after_its_import_is_imported_again(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.add_run({"a.txt": "before", "b.txt": "b"})
    changes = iter(("after!",))
    top = artifacts_of(run)

    def change() -> None:
        for text in changes:
            write(top / "a.txt", text)
            write(top / "later.txt", "later")
            (top / "b.txt").unlink()

    after_each_import(monkeypatch, change)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"after!", "later.txt": b"later"}}


def test_a_file_that_keeps_changing_leaves_its_run_where_it_is(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = site.add_run({"a.txt": "x"}), site.add_run({"b.txt": "b"})
    with monkeypatch.context() as patch:
        after_each_import(patch, lambda: write(artifacts_of(run) / "a.txt", os.urandom(4).hex()))
        done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    [line] = [line for line in done.lines if line.startswith("left out")]
    assert f"run {run.info.run_id}: '{run.info.artifact_uri}/a.txt' changed while it was read" in line
    assert location(site, run) == run.info.artifact_uri
    assert location(site, other).startswith("mfs://")
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}")[run.info.run_id] == {"a.txt": (artifacts_of(run) / "a.txt").read_bytes()}


def test_a_run_that_is_deleted_meanwhile_leaves_nothing(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = site.add_run({"a.txt": "a", "b.txt": "b"}), site.add_run({"b.txt": "stays"})

    def delete() -> None:
        shutil.rmtree(artifacts_of(gone), ignore_errors=True)
        for table in ("tags", "runs"):
            site.query(f"DELETE FROM {table} WHERE run_uuid = ?", gone.info.run_id)

    after_each_import(monkeypatch, delete)
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {stays.info.run_id: {"b.txt": b"stays"}}
    assert [entry.name for entry in shared_store().files.walk(MfsPath("mlflow"))] == ["b.txt"]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nowhere://bucket/0/{}/artifacts", "nowhere://bucket"),
        ("s3://user:secret@bucket/0/{}/artifacts", "cannot be read"),
        ("file://other-host/mlruns/0/{}/artifacts", "is on the disk of another host"),
        ("/no-such-disk/mlruns/0/{}/artifacts", "is not on this machine"),
    ],
)
def test_a_place_that_cannot_be_read_is_named(cli: CommandLine, site: StockSite, uri: str, reason: str) -> None:
    run = site.add_run()
    uri = uri.format(run.info.run_id)
    site.query("UPDATE runs SET artifact_uri = ?", uri)
    for options in (["--dry-run"], []):
        done = cli("adopt", "--backend-store-uri", site.uri, *options, code=1)
        assert reason in done.lines[0]
        assert "secret" not in done.stdout.decode() + done.stderr
    assert location(site, run) == uri


def test_files_that_mlflow_has_logged_and_that_are_missing_are_named(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    model = site.add_model(run)
    shutil.rmtree(model.artifact_location)
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert f"left out    logged model {model.model_id}: MLflow has logged files to {model.artifact_location}" in str(
        done.stdout.decode()
    )


def test_an_unreadable_file_leaves_its_run_where_it_is(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    os.mkfifo(artifacts_of(run) / "pipe")
    (artifacts_of(run) / "loop").symlink_to(".")
    done = cli("adopt", "--backend-store-uri", site.uri, code=1)
    assert "pipe' is neither a file nor a directory" in done.lines[0]
    assert "loop' is a symlink to a directory that contains it" in done.lines[0]
    assert location(site, run) == run.info.artifact_uri
    (artifacts_of(run) / "pipe").unlink()
    (artifacts_of(run) / "loop").unlink()
    cli("adopt", "--backend-store-uri", site.uri)
    assert read_site(f"ipfs+{site.uri}") == {run.info.run_id: {"a.txt": b"a"}}


def test_a_full_disk_stops_the_adoption_and_the_next_one_continues(
    site: StockSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.command_line import CommandLine

    small = site.add_run({"a.txt": "a"})
    big = site.add_run(experiment=site.client.create_experiment("big"))
    artifacts_of(big).mkdir(parents=True)
    (artifacts_of(big) / "big.bin").write_bytes(os.urandom(30_000_000))
    with mounted_tmpfs(tmp_path / "disk", size_bytes=24_000_000):
        cli = CommandLine(tmp_path / "disk/store")
        monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{cli.store}")
        done = cli("adopt", "--backend-store-uri", site.uri, code=1)
        assert "full" in done.stderr or "space" in done.stderr
        assert location(site, small).startswith("mfs://")
        assert location(site, big) == big.info.artifact_uri
        subprocess.run(["mount", "-o", "remount,size=90000000", tmp_path / "disk"], check=True)
        cli("adopt", "--backend-store-uri", site.uri)
        with open_store() as store:
            [entry] = store.files.walk(MfsPath.parse(location(site, big)))
            assert store.open(entry.cid).read() == (artifacts_of(big) / "big.bin").read_bytes()


def test_of_two_adoptions_the_second_says_which_process_is_first(cli: CommandLine, site: StockSite) -> None:
    site.add_run({"a.txt": "a"})
    with adopting.only_adoption(shared_store()):
        done = cli("adopt", "--backend-store-uri", site.uri, code=1)
        assert f"process {os.getpid()} on " in done.stderr
        assert "adopts a database" in done.stderr
        cli("adopt", "--backend-store-uri", site.uri, "--dry-run")
    cli("adopt", "--backend-store-uri", site.uri)


@pytest.mark.slow
def test_two_adoptions_at_once_both_end_right(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    before = read_site(site.uri)
    command = [*cli.command, "adopt", "--backend-store-uri", site.uri]
    both = [subprocess.Popen(command, env=cli.environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    messages = [process.communicate(timeout=120)[1] for process in both]
    for process, message in zip(both, messages, strict=True):
        assert process.returncode == 0 or "adopts a database into" in message, message
    assert 0 in {process.returncode for process in both}
    assert read_site(f"ipfs+{site.uri}") == before


def test_a_database_of_an_older_mlflow_is_refused_and_shown(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    for table in ("logged_model_tags", "logged_model_params", "logged_model_metrics", "logged_models", "trace_tags"):
        site.query(f"DROP TABLE {table}")
    site.query("UPDATE alembic_version SET version_num = '400f98739977'")
    before = site.database.read_bytes()
    done = cli("adopt", "--backend-store-uri", site.uri, code=2)
    assert f"`mlflow db upgrade {site.uri}`" in done.stderr
    assert (
        "experiment  digits: 3 runs; 9 files"
        in cli("adopt", "--backend-store-uri", site.uri, "--dry-run").stdout.decode()
    )
    assert site.database.read_bytes() == before


def test_a_database_of_a_newer_mlflow_is_refused(cli: CommandLine, site: StockSite) -> None:
    site.query("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    done = cli("adopt", "--backend-store-uri", site.uri, code=2)
    assert "a newer version of MLflow" in done.stderr


def test_a_database_with_workspaces_is_refused(cli: CommandLine, site: StockSite) -> None:
    site.add_run()
    site.query("UPDATE experiments SET workspace = 'team'")
    assert "the workspaces team" in cli("adopt", "--backend-store-uri", site.uri, code=5).stderr


def test_a_version_of_files_outside_of_every_run_is_frozen(cli: CommandLine, site: StockSite, tmp_path: Path) -> None:
    write(tmp_path / "bought/MLmodel", "flavors: {}")
    site.add_version("bought", str(tmp_path / "bought"))
    site.add_version("gone", str(tmp_path / "gone"))
    for options, verb in ((["--dry-run"], "to freeze"), ([], "frozen")):
        done = cli("adopt", "--backend-store-uri", site.uri, *options, code=1)
        assert f"versions    1 {verb}" in done.lines
        [line] = [line for line in done.lines if line.startswith("left out")]
        assert line.startswith(
            f"left out    model version gone/1: its files were at {tmp_path}/gone, which does not exist"
        )
    client = MlflowClient(tracking_uri=f"ipfs+{site.uri}", registry_uri=f"ipfs+{site.uri}")
    assert client.get_model_version_download_uri("bought", "1").startswith("ipfs://bafy")
    assert (tmp_path / "bought/MLmodel").exists()


def test_best_effort_tags_a_version_that_cannot_be_frozen(
    cli: CommandLine, site: StockSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "best_effort")
    site.add_version("gone", str(tmp_path / "gone"))
    cli("adopt", "--backend-store-uri", site.uri, code=1)
    tags = site.client.get_model_version("gone", "1").tags
    assert tags["ipfs.frozen"] == "false"
    assert "does not exist" in tags["ipfs.unfrozen_reason"]
    write(tmp_path / "gone/MLmodel", "flavors: {}")
    cli("adopt", "--backend-store-uri", site.uri)
    assert site.client.get_model_version("gone", "1").tags.keys() == {"ipfs.cid", "ipfs.size_bytes"}


def test_without_freezing_versions_follow_their_runs(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    site.fill()
    before = read_site(site.uri)
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    assert read_site(f"ipfs+{site.uri}") == before
    assert not [uri for (uri,) in site.query("SELECT storage_location FROM model_versions") if "@" in uri]
