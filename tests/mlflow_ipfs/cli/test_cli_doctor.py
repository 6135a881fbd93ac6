from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.cli import doctor_store_checks
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.content.system.disk import Disk
from support.storages import delete_block

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine


def findings(cli: CommandLine, *, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return the findings by topic: of each topic the first problem, or else the first finding."""
    found: dict[str, dict[str, Any]] = {}
    for record in cli("doctor", "--json", code=code).records:
        if record["topic"] not in found or record["state"] == "problem" != found[record["topic"]]["state"]:
            found[record["topic"]] = record
    return found


def test_a_sound_store_has_no_problem(cli: CommandLine, directory: Path) -> None:
    root = cli("add", "-q", "--hidden", directory).lines[0]
    found = findings(cli)
    assert "problem" not in {record["state"] for record in found.values()}
    assert found["store"]["path"] == str(cli.store)
    assert found["store"]["format"] == 1
    assert (found["contents"]["blocks"], found["contents"]["pins"]) == (10, 1)
    assert found["contents"]["stored_bytes"] >= 2_560_000
    assert found["writing"]["text"] == "works"
    assert found["MLflow"]["entry_points"] >= 8
    assert [(one["cid"], one["owner"]) for one in cli("pin", "ls", "--json").records] == [(root, "user")]


def test_it_reads_well(cli: CommandLine, directory: Path) -> None:
    cli("add", directory)
    lines = cli("doctor").lines
    assert lines[0].startswith("  mlflow-ipfs  0.")
    assert f"  store        {cli.store}, format 1" in lines
    assert sum(line.startswith("  settings") for line in lines) == 1
    assert any(line.split() == ["freeze", "required", "(default)"] for line in lines)


def test_the_source_of_each_setting_is_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config" / "mlflow-ipfs" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('profile = "unixfs-v0-2015"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MLFLOW_IPFS_CHUNKER", "size-1000")
    settings = {record["name"]: record for record in cli("doctor", "--json").records if record["topic"] == "settings"}
    assert settings["store"]["source"] == "MLFLOW_IPFS_STORE"
    assert (settings["profile"]["value"], settings["profile"]["source"]) == ("unixfs-v0-2015", f"{config}: profile")
    assert (settings["chunker"]["value"], settings["chunker"]["source"]) == ("size-1000", "MLFLOW_IPFS_CHUNKER")
    assert (settings["freeze"]["value"], settings["freeze"]["source"]) == ("required", "default")
    other = cli("--store", tmp_path / "x", "doctor", "--json").records
    assert next(record for record in other if record.get("name") == "store")["source"] == "--store"


def test_a_store_that_does_not_exist_is_not_a_problem_and_is_not_created(cli: CommandLine) -> None:
    assert findings(cli)["store"]["state"] == "note"
    assert not cli.store.exists()


def test_a_directory_that_is_not_a_store_is_a_problem(cli: CommandLine) -> None:
    cli.store.mkdir()
    (cli.store / "diary.txt").write_text("mine")
    found = findings(cli, code=1)
    assert found["store"]["state"] == "problem"
    assert "1 problem found" in cli("doctor", code=1).stderr


def test_a_newer_format_is_a_problem(cli: CommandLine, directory: Path) -> None:
    cli("add", directory)
    file = cli.store / "format.json"
    file.write_text(file.read_text().replace('"min_reader": 1', '"min_reader": 99'))
    assert "upgrade mlflow-ipfs" in findings(cli, code=1)["store"]["text"]


def test_a_lost_index_is_a_problem(cli: CommandLine, directory: Path) -> None:
    cli("add", directory)
    (cli.store / "store.db").unlink()
    assert findings(cli, code=1)["store"]["state"] == "problem"


def test_a_wrong_setting_is_a_problem_and_the_other_checks_still_run(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "nonsense")
    found = findings(cli, code=1)
    assert "MLFLOW_IPFS_FREEZE" in found["settings"]["text"]
    assert found["MLflow"]["state"] == "ok"


def test_a_disk_that_takes_no_writes_is_a_problem(
    cli: CommandLine, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("add", directory)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "commit", no_room)
    assert findings(cli, code=1)["writing"]["state"] == "problem"


def test_low_disk_space_is_noted(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_store_checks, "free_bytes", lambda _: 12_345)
    found = findings(cli)
    assert (found["disk"]["state"], found["disk"]["free_bytes"]) == ("note", 12_345)


def test_a_network_file_system_is_a_problem(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "file_system_of", lambda _: "nfs4")
    assert findings(cli, code=1)["disk"]["state"] == "problem"


def test_damage_that_was_found_is_a_problem(cli: CommandLine, directory: Path) -> None:
    root = cli("add", "-q", directory).lines[0]
    big = next(path for path in (cli.store / "files").rglob("*") if path.is_file() and path.stat().st_size > 2_000_000)
    big.chmod(0o644)
    with big.open("r+b") as file:
        file.write(b"damaged")
    cli("verify", root, code=4)
    with open_local_storage(cli.store) as storage, pytest.raises(OSError, match="damaged|set aside"):
        storage.file_path(CID.parse(cli("ls", "--json", root).records[0]["cid"]))
    assert findings(cli, code=1)["damage"]["state"] == "problem"


def test_a_session_that_is_open_is_counted(cli: CommandLine, directory: Path) -> None:
    cli("add", directory)
    with open_local_storage(cli.store) as storage:
        storage.make_view_directory()
        assert findings(cli)["sessions"]["live"] == 1


def test_an_entry_point_that_does_not_load_is_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("mlflow")  # before the entry points of mlflow-ipfs, as in a real process
    monkeypatch.delattr("mlflow_ipfs.plugins.artifact_repository.MfsArtifactRepository")
    text = findings(cli, code=1)["MLflow"]["text"]
    assert "mlflow.artifact_repository 'mfs' cannot be loaded: AttributeError: " in text


class TestModelVersions:
    """Tests of ``--backend-store-uri``, which reads MLflow's database and ignores tags."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        from sqlalchemy import create_engine, insert

        from mlflow_ipfs.binding.mlflow_compat import SqlModelVersion

        rows = [
            ("digits", 1, "None", "mlflow-artifacts:/1/models/m-1/artifacts/@bafkqaaa", "models:/m-1"),
            ("digits", 2, "None", "mlflow-artifacts:/1/models/m-2/artifacts", "models:/m-2"),
            ("digits", 3, "Deleted_Internal", "mlflow-artifacts:/1/models/m-3/artifacts", "models:/m-3"),
            ("greeting", 1, "None", "dummy-source", "dummy-source"),
            ("old", 7, "None", None, "s3://bucket/old"),
            ("by-cid", 1, "None", "ipfs://bafkqaaa", "ipfs://bafkqaaa"),
            ("below", 1, "None", "ipfs://bafkqaaa/model", "prompt-template"),
        ]
        names = ("name", "version", "current_stage", "storage_location", "source")
        file = tmp_path / "mlflow.db"
        engine = create_engine(f"sqlite:///{file}")
        table = SqlModelVersion.__table__
        with engine.begin() as connection:
            table.create(connection)
            connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        engine.dispose()
        return file

    @pytest.mark.parametrize("prefix", ["sqlite:///", "ipfs+sqlite:///"])
    def test_those_that_are_not_frozen_are_listed(self, cli: CommandLine, database: Path, prefix: str) -> None:
        records = cli("doctor", "--json", "--backend-store-uri", f"{prefix}{database}").records
        counts, *versions = [record for record in records if record["topic"] == "versions"]
        assert (counts["frozen"], counts["unfrozen"], counts["prompts"]) == (2, 3, 1)
        assert [(found["name"], found["version"], found["location"]) for found in versions] == [
            ("below", 1, "ipfs://bafkqaaa/model"),
            ("digits", 2, "mlflow-artifacts:/1/models/m-2/artifacts"),
            ("old", 7, "s3://bucket/old"),
        ]
        assert {found["state"] for found in versions} == {"note"}
        lines = cli("doctor", "--backend-store-uri", f"{prefix}{database}").lines
        assert "  versions     2 model versions frozen, 3 not frozen; 1 prompt version, without files" in lines

    def test_a_database_that_is_not_mlflows_is_a_problem(self, cli: CommandLine, tmp_path: Path) -> None:
        (tmp_path / "empty.db").touch()
        for uri, reason in (
            (f"sqlite:///{tmp_path}/none.db", "is not a file"),
            (f"sqlite:///{tmp_path}/empty.db", "cannot be read"),
            ("https://mlflow.example", "the address of a server"),
        ):
            records = cli("doctor", "--json", "--backend-store-uri", uri, code=1).records
            (found,) = [record for record in records if record["topic"] == "versions"]
            assert found["state"] == "problem"
            assert reason in found["text"]
        assert not (tmp_path / "none.db").exists()

    def test_a_rebuild_does_not_read_it(self, cli: CommandLine, database: Path) -> None:
        assert "--rebuild" in cli("doctor", "--rebuild", "--backend-store-uri", f"sqlite:///{database}", code=2).stderr


class TestTheDatabaseIsComparedWithTheStore:
    @pytest.fixture
    def database(self, cli: CommandLine, root: str, directory: Path, tmp_path: Path) -> str:
        """Return the URI of a database with a frozen version, a run with files, a run without, and one outside."""
        run = "mfs://mlflow/0/r1/artifacts"
        with open_store(Settings(store=cli.store)) as store:
            store.files.put_tree(MfsPath.parse(run), directory)
            store.pins.add(Pin("model-version:0123456789abcdef/digits/1", CID.parse(root)))
            store.unpin(root)
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            connection.executescript(
                "CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, artifact_uri TEXT);"
                "CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT);"
                f"INSERT INTO runs VALUES ('r1', 0, '{run}');"
                "INSERT INTO runs VALUES ('r2', 0, 'mfs://mlflow/0/r2/artifacts');"
                "INSERT INTO runs VALUES ('r3', 0, 's3://bucket/0/r3/artifacts');"
                "INSERT INTO tags VALUES ('r1', 'mlflow.log-model.history', '[]'), ('r3', 'mlflow.log-model.history', '[]');"
                "CREATE TABLE model_versions (name TEXT, version INTEGER, current_stage TEXT, source TEXT, storage_location TEXT);"
                f"INSERT INTO model_versions VALUES ('digits', 1, 'None', 'models:/m-1', 'mlflow-artifacts:/0/models/m-1/@{root}');"
            )
            connection.commit()
        return f"sqlite:///{tmp_path}/mlflow.db"

    def findings(self, cli: CommandLine, database: str, code: int) -> list[dict[str, Any]]:
        records = cli("doctor", "--json", "--backend-store-uri", database, code=code).records
        return [record for record in records if record["topic"] == "content"]

    def test_a_complete_store(self, cli: CommandLine, database: str) -> None:
        (found,) = self.findings(cli, database, 0)
        assert found["state"] == "ok"
        assert (found["checked"], found["lost"], found["unkept"], found["incomplete"]) == (2, 0, 0, 0)

    def test_lost_content(self, cli: CommandLine, database: str, root: str) -> None:
        with open_store(Settings(store=cli.store)) as store:
            store.files.delete(MfsPath.parse("mfs://mlflow/0/r1"))
            delete_block(store.storage, CID.parse(root))
        sums, *problems = self.findings(cli, database, 1)
        assert (sums["lost"], sums["state"]) == (2, "note")
        assert [found["text"] for found in problems[:2]] == [
            f"model version digits/1: {root} is not in the store",
            "run r1: no files at mfs://mlflow/0/r1/artifacts",
        ]
        assert problems[2]["text"].startswith("pin model-version:0123456789abcdef/digits/1: the block ")
        text = cli("doctor", "--backend-store-uri", database, code=1).stdout.decode()
        assert "add what is lost again, or restore a backup of the store" in text

    def test_a_version_without_a_pin(self, cli: CommandLine, database: str, root: str) -> None:
        with open_store(Settings(store=cli.store)) as store:
            store.pins.remove(CID.parse(root), "model-version:0123456789abcdef/digits/1")
        _, problem = self.findings(cli, database, 1)
        assert problem["text"] == (
            f"model version digits/1: no pin keeps {root}, so a gc removes it; run `mlflow-ipfs pin add {root}`"
        )
        cli("pin", "add", root)
        self.findings(cli, database, 0)

    def test_a_store_whose_index_was_rebuilt_without_its_small_content(self, cli: CommandLine, database: str) -> None:
        for path in (*cli.store.glob("store.db*"), *(cli.store / "backup").iterdir()):
            path.unlink()
        cli("doctor", "--rebuild", code=1)
        cli("scrub")
        sums, *problems = self.findings(cli, database, 1)
        assert sums["lost"] == 2
        assert {found["state"] for found in problems} == {"problem"}
