"""Clients that keep an MLflow server busy, and checks of a backup that was made meanwhile."""

from __future__ import annotations

import itertools
import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.databases.drivers import name_driver
from mlflow_ipfs.binding.locations import cid_of_location
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.clients import ask
from support.processes import wait_until
from support.storages import check_sound

if TYPE_CHECKING:
    from typing import Any

SIZES_BYTES = (100, 70_000, (1 << 20) + 5)
FILES = ("weights.bin", "MLmodel")
_RUNS = """
    SELECT r.run_uuid, r.artifact_uri, e.value, d.value FROM runs r
    JOIN tags e ON e.run_uuid = r.run_uuid AND e.key = 'edition'
    LEFT JOIN tags d ON d.run_uuid = r.run_uuid AND d.key = 'deleted'
"""
_VERSIONS = "SELECT name, version, storage_location FROM model_versions WHERE current_stage != 'Deleted_Internal'"


def content(name: str, edition: int) -> bytes:
    """Return the content of an edition of a file."""
    chance = random.Random(f"{name} {edition}")
    return json.dumps([name, edition]).encode() + b"\n" + chance.randbytes(chance.choice(SIZES_BYTES))


@dataclass
class Clients:
    """Clients of an MLflow server.

    They record an operation in the tracking server only after it is complete, and a deletion before it starts.
    """

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    versions: list[str] = field(default_factory=list)  # model names of all versions made so far, by all clients

    def wait_for_versions(self, count: int) -> None:
        wait_until(lambda: len(self.versions) >= count, timeout_seconds=60, what=f"{count} versions were made")

    def upload(self, path: str, data: bytes) -> None:
        answer = ask(f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}", method="PUT", body=data)
        assert answer.status == 200, answer

    def work(self, number: int) -> int:
        """Work as client ``number`` until stopped. Return the number of its model versions."""
        client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)
        name = f"model-{number}"
        client.create_registered_model(name)
        made: list[tuple[str, str]] = []
        for count in itertools.count(1):
            run = client.create_run("0")
            run_id, path = run.info.run_id, str(run.info.artifact_uri).removeprefix("mlflow-artifacts:/")
            for edition in (1, 2):
                for file in FILES:
                    self.upload(f"{path}/model/{file}", content(f"{run_id}/{file}", edition))
                client.set_tag(run_id, "edition", edition)
                version = client.create_model_version(
                    name, f"{run.info.artifact_uri}/model", run_id, await_creation_for=0
                )
                made.append((name, version.version))
                self.versions.append(name)
            if count % 2:
                client.set_tag(run_id, "deleted", "true")
                answer = ask(f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}/model", method="DELETE")
                assert answer.status == 200, answer
            client.delete_model_version(*made.pop(0))
            if self.stop.is_set():
                return len(made)
        raise AssertionError


def check_restored(database: str, directory: Path) -> tuple[int, int]:
    """Check that a store contains everything that a database names. Return the number of runs and of versions."""
    runs, versions = read_rows(database, _RUNS), read_rows(database, _VERSIONS)
    storage = open_local_storage(directory, create=False)
    with ContentStore(storage) as store:
        check_sound(storage)
        for run_id, uri, edition, deleted in runs:
            if deleted is None:
                path = MfsPath("mlflow", f"{uri.removeprefix('mlflow-artifacts:/')}/model")
                check_artifacts(store, path, run_id, int(edition))
        for name, version, location in versions:
            cid = cid_of_location(location)
            assert cid is not None, (name, version, location)
            assert store.verify(cid).ok, (name, version)
            assert list(store.pins.list(cid=cid)), (name, version)
            with store.open(cid, "weights.bin") as opened:
                check_content(opened.read())
        store.collect_garbage()
        check_sound(storage)
    return len(runs), len(versions)


def read_rows(database: str, query: str) -> list[tuple[Any, ...]]:
    """Ask a database by its URI."""
    engine = sqlalchemy.create_engine(name_driver(database), poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]


def check_artifacts(store: ContentStore, path: MfsPath, run_id: str, edition: int) -> None:
    for file in FILES:
        entry = store.storage.entries.stat(path.root, f"{path.path}/{file}")
        assert isinstance(entry, MfsEntry), path
        with store.open(entry.cid) as opened:
            found_name, found_edition = check_content(opened.read())
        assert found_name == f"{run_id}/{file}"
        assert found_edition >= edition, "older than the edition in the database"


def check_content(data: bytes) -> list[Any]:
    """Check the content of a file against the name and edition in its first line. Return them."""
    name_and_edition: list[Any] = json.loads(data[: data.index(b"\n")])
    assert data == content(*name_and_edition)
    return name_and_edition


def check_served(url: str, directory: Path) -> int:
    """Check that a client can download every model version and the files of its run. Return the number of versions."""
    client = MlflowClient(tracking_uri=url, registry_uri=url)
    versions = client.search_model_versions(max_results=1000)
    for number, version in enumerate(versions):
        assert version.run_id is not None
        run = client.get_run(version.run_id)
        sources = [client.get_model_version_download_uri(version.name, version.version)]
        if "deleted" not in run.data.tags:
            sources.append(f"runs:/{version.run_id}/model")
        for index, source in enumerate(sources):
            target = directory / f"{number}-{index}"
            target.mkdir(parents=True)
            found = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(target), tracking_uri=url))
            for file in FILES:
                assert check_content((found / file).read_bytes())[0] == f"{version.run_id}/{file}"
    return len(versions)
