"""Tests of `mlflow-ipfs databases`: the list of databases, and separating copies."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases.claims import list_databases
from mlflow_ipfs.binding.databases.sightings import observe
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore

if TYPE_CHECKING:
    from support.command_line import CommandLine


def see(store: Path, database: Path) -> str:
    """Open a database with a store, as MLflow does, and return its registry id."""
    engine = sqlalchemy.create_engine(f"sqlite:///{database}", poolclass=NullPool)
    registry_id = ensure_registry_id(engine)
    with open_local_storage(store) as storage:
        observe(storage, registry_id, engine)
    engine.dispose()
    return registry_id


@pytest.fixture
def database(cli: CommandLine, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT);"
            "CREATE TABLE model_versions (name TEXT, version INTEGER, storage_location TEXT, source TEXT, current_stage TEXT);"
        )
    see(cli.store, path)
    return path


@pytest.fixture
def copy(cli: CommandLine, database: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copy(database, tmp_path / "copy.db"))
    see(cli.store, copy)
    return copy


def test_ls_shows_copies(cli: CommandLine, database: Path, copy: Path) -> None:
    records = cli("databases", "ls", "--json").records
    assert {record["uri"] for record in records} == {f"sqlite:///{database}", f"sqlite:///{copy}"}
    assert all(record["is_shared"] for record in records)
    assert all("one of several" in line for line in cli("databases", "ls").lines)


def test_ls_shows_the_size_and_drop_frees_it(cli: CommandLine, database: Path, tmp_path: Path) -> None:
    registry_id = see(cli.store, database)
    (tmp_path / "weights").write_bytes(bytes(200_000))
    with open_local_storage(cli.store) as storage, ContentStore(storage) as store:
        store.files.put_file(MfsPath("mlflow", f"{registry_id}/0/run/artifacts/weights"), tmp_path / "weights")
    [record] = cli("databases", "ls", "--json").records
    assert (record["model_versions"], record["files"], record["total_bytes"] >= 200_000) == (0, 1, True)
    assert record["used_at"] >= record["seen_at"]
    assert "KiB exclusive" in cli("databases", "ls").lines[0]
    assert "may still be in use" in cli("databases", "drop", registry_id, code=5).stderr
    database.unlink()
    assert cli("databases", "drop", registry_id, "--dry-run").lines == [
        "would drop 0 model versions, 0 frozen paths, 1 file"
    ]
    assert (
        cli("databases", "drop", registry_id).lines[0].startswith("dropped 0 model versions, 0 frozen paths, 1 file;")
    )
    assert cli("databases", "ls").lines == []


def test_fork(cli: CommandLine, database: Path, copy: Path) -> None:
    former = see(cli.store, database)
    done = cli("databases", "fork", "--backend-store-uri", f"ipfs+sqlite:///{copy}")
    new = see(cli.store, copy)
    assert new != former
    assert done.lines[0] == f"registry id  {new}, formerly {former}"
    assert done.stderr == ""
    assert {record["uri"]: record["registry_id"] for record in cli("databases", "ls", "--json").records} == {
        f"sqlite:///{database}": former,
        f"sqlite:///{copy}": new,
    }
    assert not any(record["is_shared"] for record in cli("databases", "ls", "--json").records)


def test_a_fork_of_the_only_database_reports_what_is_kept(cli: CommandLine, database: Path) -> None:
    arguments = ("databases", "fork", "--backend-store-uri", f"sqlite:///{database}")
    assert "--even-if-unshared" in cli(*arguments, code=5).stderr
    done = cli(*arguments, "--even-if-unshared", "--json")
    [record] = done.records
    assert record["others"] == 0
    assert f"no other database with the registry id {record['former_id']} has used" in done.stderr


def test_moved(cli: CommandLine, database: Path, copy: Path) -> None:
    arguments = ("databases", "moved", "--backend-store-uri", f"sqlite:///{copy}")
    assert cli(*arguments).lines == [f"forgotten  sqlite:///{database}"]
    assert cli(*arguments).lines == ["nothing to forget"]
    [record] = cli("databases", "ls", "--json").records
    assert record["uri"] == f"sqlite:///{copy}"


def test_a_missing_database_is_refused(cli: CommandLine, database: Path, tmp_path: Path) -> None:
    del database
    for command in ("fork", "moved"):
        assert "does not exist" in cli("databases", command, "--backend-store-uri", "sqlite:///none.db", code=2).stderr
    assert not (tmp_path / "none.db").exists()


def test_a_restored_database_is_not_reported_as_a_copy(cli: CommandLine, database: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{database}"
    cli("backup", tmp_path / "backup", "--backend-store-uri", uri)
    there = tmp_path / "there"
    cli(
        "--store",
        there / "store",
        "restore",
        tmp_path / "backup",
        "--backend-store-uri",
        f"sqlite:///{there}/mlflow.db",
    )
    with open_local_storage(there / "store") as storage:
        [[place]] = list_databases(storage).values()
    assert place.name == f"{there}/mlflow.db"
    with open_local_storage(cli.store) as storage:
        [[place]] = list_databases(storage).values()
    assert place.name == str(database)
