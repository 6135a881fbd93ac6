"""Removal of old files after an adoption: only of files that are equal in the store."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.entities import Dataset, DatasetInput

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import shared_store
from support.stock_sites import StockSite, artifacts_of, read_site, write

if TYPE_CHECKING:
    from support.command_line import CommandLine

pytestmark = pytest.mark.slow


def test_old_files_are_removed_by_a_later_call(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    before = read_site(site.uri)
    cli("adopt", "--backend-store-uri", site.uri)
    assert len([path for path in site.directory.joinpath("mlruns").rglob("*") if path.is_file()]) == 13
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    assert done.lines[-1] == "removed     13 old files, 201 B"
    assert list(site.directory.joinpath("mlruns").iterdir()) == []
    assert read_site(f"ipfs+{site.uri}") == before


def test_files_behind_a_server_are_removed(cli: CommandLine, site: StockSite) -> None:
    site.fill()
    site.move_behind_a_server()
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source")
    assert done.lines[-1] == "removed     13 old files, 201 B"
    assert list(site.directory.joinpath("mlartifacts").iterdir()) == []
    assert len(shared_store().files.walk(MfsPath("mlflow"))) == 13
    assert "removed     0 old files" in cli("adopt", "--backend-store-uri", site.uri, "--remove-source").lines[-1]


def test_only_equal_files_are_removed(cli: CommandLine, site: StockSite, tmp_path: Path) -> None:
    run = site.add_run({"same.txt": "same", "changed.txt": "before"})
    top = artifacts_of(run)
    write(tmp_path / "data/big.bin", "big")
    (top / "link.bin").symlink_to(tmp_path / "data/big.bin")
    (top / "linked").symlink_to(tmp_path / "data")
    cli("adopt", "--backend-store-uri", site.uri)
    write(top / "changed.txt", "after!")
    write(top / "added.txt", "added")
    write(top.parent / "stray.txt", "not an artifact")
    [(location,)] = site.query("SELECT artifact_uri FROM runs")
    shared_store().files.put_stream(MfsPath.parse(location).join("changed.txt"), io.BytesIO(b"newer"))
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert f"kept        run {run.info.run_id}: 'changed.txt' differs from the store" in done.lines[-2]
    assert [path.name for path in top.iterdir()] == ["changed.txt"]
    assert read_site(f"ipfs+{site.uri}")[run.info.run_id]["added.txt"] == b"added"
    assert (top.parent / "stray.txt").exists()
    assert (tmp_path / "data/big.bin").read_text() == "big"


def test_what_was_left_out_is_not_removed(cli: CommandLine, site: StockSite) -> None:
    running = site.add_run({"a.txt": "a"}, status="RUNNING")
    site.add_run({"b.txt": "b"})
    cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert (artifacts_of(running) / "a.txt").read_text() == "a"
    assert len(list((site.directory / "mlruns/0").iterdir())) == 1


def test_files_that_a_version_still_reads_are_not_removed(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"model/MLmodel": "flavors: {}"})
    site.add_version("net", f"{run.info.artifact_uri}/model")
    site.query("UPDATE model_versions SET source = source || '/no', storage_location = storage_location || '/no'")
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert any(line.startswith("left out    model version net/1: ") for line in done.lines)
    assert any("model version net/1 still reads files in" in line for line in done.lines)
    assert (artifacts_of(run) / "model/MLmodel").exists()


def test_files_of_a_run_that_was_left_out_are_not_removed_through_a_symlink(cli: CommandLine, site: StockSite) -> None:
    running = site.add_run({"a.txt": "a"}, status="RUNNING")
    link, inner, target = site.add_run(), site.add_run(), site.add_run({"big.bin": "big"})
    artifacts_of(link).parent.mkdir(parents=True)
    artifacts_of(link).symlink_to(artifacts_of(running))
    artifacts_of(inner).mkdir(parents=True)
    (artifacts_of(inner) / "inner").symlink_to(artifacts_of(running))
    (artifacts_of(running) / "big.bin").symlink_to(artifacts_of(target) / "big.bin")
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    for run in (link, target):
        assert (
            f"kept        run {run.info.run_id}: run {running.info.run_id} still reads files in" in done.stdout.decode()
        )
    assert sorted(path.name for path in artifacts_of(running).iterdir()) == ["a.txt", "big.bin"]
    assert (artifacts_of(running) / "big.bin").read_text() == "big"
    assert not artifacts_of(inner).exists()


def test_files_of_a_run_that_was_left_out_behind_a_server_are_not_removed(cli: CommandLine, site: StockSite) -> None:
    left, link = site.add_run({"a.txt": "a"}), site.add_run()
    site.move_behind_a_server()
    directories = [site.directory / f"mlartifacts/0/{run.info.run_id}/artifacts" for run in (left, link)]
    os.mkfifo(directories[0] / "pipe")
    write(directories[1] / "b.txt", "b")
    (directories[0] / "linked").symlink_to(directories[1])
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert f"run {left.info.run_id} still reads files in" in done.stdout.decode()
    assert (directories[0] / "linked/b.txt").read_text() == "b"


def test_files_that_a_version_reads_through_a_symlink_are_not_removed(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "off")
    run = site.add_run({"model/MLmodel": "flavors: {}"})
    (site.directory / "alias").symlink_to("mlruns")
    alias = str(artifacts_of(run) / "model").replace("/mlruns/", "/alias/")
    site.add_version("net", alias)
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert f"kept        run {run.info.run_id}: model version net/1 still reads files in" in done.lines[-2]
    assert read_site(f"ipfs+{site.uri}")["net/1"] == {"MLmodel": b"flavors: {}"}


def test_files_that_a_dataset_names_are_not_removed(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"data/train.csv": "1,2"})
    source = json.dumps({"uri": str(artifacts_of(run) / "data/train.csv")})
    site.client.log_inputs(run.info.run_id, [DatasetInput(Dataset("train", "1234", "local", source))])
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert f"kept        run {run.info.run_id}: dataset train still reads files in" in done.lines[-2]
    assert (artifacts_of(run) / "data/train.csv").exists()


def test_a_file_that_is_written_while_others_are_removed_stays(
    cli: CommandLine, site: StockSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.add_run({"a.txt": "a", "b.txt": "b"})
    cli("adopt", "--backend-store-uri", site.uri)
    unlink = Path.unlink

    def unlink_and_write(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name == "a.txt":
            write(path.with_name("b.txt"), "c")

    monkeypatch.setattr(Path, "unlink", unlink_and_write)
    done = cli("adopt", "--backend-store-uri", site.uri, "--remove-source", code=1)
    assert f"kept        run {run.info.run_id}: 'b.txt' was changed meanwhile" in done.lines
    assert [path.read_text() for path in artifacts_of(run).iterdir()] == ["c"]


def test_a_copied_database_is_adopted_and_emptied_only_after_a_fork(cli: CommandLine, site: StockSite) -> None:
    run = site.add_run({"a.txt": "a"})
    cli("adopt", "--backend-store-uri", site.uri)
    copy = site.directory / "copy.db"
    shutil.copy(site.database, copy)
    for options in ((), ("--remove-source",)):
        done = cli("adopt", "--backend-store-uri", f"sqlite:///{copy}", *options, code=5)
        assert "nothing was adopted" in done.stderr
        assert "mlflow-ipfs databases fork" in done.stderr
    assert (artifacts_of(run) / "a.txt").exists()
    cli("databases", "fork", "--backend-store-uri", f"sqlite:///{copy}")
    for database in (site.database, copy):
        cli("adopt", "--backend-store-uri", f"sqlite:///{database}", "--remove-source")
        assert read_site(f"ipfs+sqlite:///{database}") == {run.info.run_id: {"a.txt": b"a"}}
    assert not artifacts_of(run).exists()


def test_a_dry_run_cannot_remove(cli: CommandLine, site: StockSite) -> None:
    done = cli("adopt", "--backend-store-uri", site.uri, "--dry-run", "--remove-source", code=2)
    assert "cannot be used together" in done.stderr
