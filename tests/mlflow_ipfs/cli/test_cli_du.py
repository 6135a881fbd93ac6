from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.binding.databases.claims import SEEN
from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.pins import Pin
from support.storages import put_file

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

REGISTRY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def test_du_shows_the_size_of_each_experiment_and_model(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.pins.remove(CID.parse(root))
        for version in ("1", "2"):
            store.pins.add(Pin(f"model-version:{REGISTRY}/digits/{version}", CID.parse(root)))
        store.storage.entries.freeze(Frozen("mlflow", f"{REGISTRY}/7/run/artifacts", CID.parse(root)))
        for place in (f"{REGISTRY}/7/run/artifacts/a", f"{REGISTRY}/7/other/artifacts/b", "3/run/artifacts/c"):
            store.files.put_stream(MfsPath.parse(f"mfs://mlflow/{place}"), io.BytesIO(place.encode() * 1000))
        store.refs.set("datasets/digits", store.add_bytes(b"d" * 500, pin=None), expected_version=0)
        store.add_bytes(b"garbage", pin=None)
    *records, total = cli("du", "--json").records
    by_name = {(record["kind"], record["name"]): record for record in records}
    assert list(by_name) == [
        ("model", "digits"),
        ("experiment", f"mfs://mlflow/{REGISTRY}/7"),
        ("experiment", "mfs://mlflow/3"),
        ("ref", "datasets/digits"),
    ]
    assert by_name["ref", "datasets/digits"]["total_bytes"] == 500
    assert all(record["own_bytes"] == record["total_bytes"] for record in records)
    assert total["unneeded_bytes"] == len(b"garbage")
    assert total["all_bytes"] == total["unneeded_bytes"] + sum(record["own_bytes"] for record in records)
    assert all((record["title"], record["added_at"]) == ("", None) for record in records)
    lines = cli("du").lines
    assert lines[0].split()[:2] == ["model", "digits"]
    assert lines[0].endswith("exclusive")
    assert "deletable" in lines[-1]


def test_du_separates_databases(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        for registry_id in (REGISTRY, OTHER):
            store.pins.add(Pin(f"model-version:{registry_id}/digits/1", CID.parse(root)))
            store.files.put_stream(
                MfsPath("mlflow", f"{registry_id}/1/run/artifacts/a"), io.BytesIO(registry_id.encode())
            )
        location = DatabaseLocation("postgresql", "db.example/mlflow", "", "1/2", seen_at=1)
        store.storage.notes.set(f"{SEEN}{OTHER}/{location.key}", location.encode())
    *records, _ = cli("du", "--json").records
    found = {(record["kind"], record["registry_id"]) for record in records}
    assert found == {(kind, one) for kind in ("model", "experiment") for one in (REGISTRY, OTHER)} | {("pin", "")}
    lines = cli("du").lines
    assert sum(line.endswith("in postgresql://db.example/mlflow") for line in lines) == 2
    assert sum(line.endswith(f"in a database with the registry id {REGISTRY}") for line in lines) == 2


def test_du_counts_what_the_cache_takes(cli: CommandLine, root: str) -> None:
    assert cli("du", "--json").records[-1]["cached_bytes"] == 0
    before = cli("du").lines[-1]
    assert "cache" not in before
    data = bytes(range(256)) * 40_000
    with open_store(Settings(store=cli.store)) as store, store.storage.publish(in_cache=True) as publication:
        put_file(publication, data)
        publication.commit()
    cached_bytes = cli("du", "--json").records[-1]["cached_bytes"]
    assert len(data) <= cached_bytes < 1.01 * len(data), "the file, and the nodes above its leaves"
    assert "; 10.3 MB more in the cache, which MLFLOW_IPFS_CACHE_BYTES limits" in cli("du").lines[-1]
    del root


def test_du_without_a_store_is_3(cli: CommandLine) -> None:
    cli("du", code=3)


def test_du_shows_the_name_of_a_pin(cli: CommandLine, root: str) -> None:
    (record, _) = cli("du", "--json").records
    assert (record["kind"], record["name"], record["title"]) == ("pin", f"user {root}", "data")
    assert record["added_at"] is not None
    assert cli("du").lines[0].startswith(f"pin  data  user {root}  ")


@pytest.mark.slow
def test_du_shows_the_names_of_experiments(cli: CommandLine, root: str, tmp_path: Path) -> None:
    del root
    database = f"sqlite:///{tmp_path}/mlflow.db"
    script = (
        "import mlflow; mlflow.set_experiment('digits'); mlflow.start_run(); mlflow.log_text('x', 'x.txt');"
        "print(mlflow.get_artifact_uri())"
    )
    environment = cli.environment | {"MLFLOW_TRACKING_URI": f"ipfs+{database}"}
    made = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    tree = made.stdout.split()[-1].rpartition("/artifacts")[0].rpartition("/")[0]

    def titles(*arguments: str) -> dict[str, str]:
        return {record["name"]: record["title"] for record in cli("du", "--json", *arguments).records[:-1]}

    assert titles()[tree] == "digits"
    with open_store(Settings(store=cli.store)) as store:
        for path in ("1/run/artifacts/x.txt", "fedcba9876543210/1/run/artifacts/x.txt"):
            store.files.put_stream(MfsPath("mlflow", path), io.BytesIO(b"behind a server"))
    assert titles()["mfs://mlflow/1"] == ""
    named = titles("--backend-store-uri", database)
    assert (named["mfs://mlflow/1"], named["mfs://mlflow/fedcba9876543210/1"]) == ("digits", "")
    (tmp_path / "mlflow.db").unlink()
    assert "does not exist" in cli("du", "--backend-store-uri", database, code=3).stderr
    assert titles()[tree] == ""
