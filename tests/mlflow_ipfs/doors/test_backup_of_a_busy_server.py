"""`mlflow-ipfs backup` beside a server whose clients log, overwrite, register and delete, and a gc without grace."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from mlflow import MlflowClient

from mlflow_ipfs.binding.backups import restore_backup
from mlflow_ipfs.binding.locations import cid_of_location
from mlflow_ipfs.content.blockstore.local import open_local_storage
from mlflow_ipfs.content.entries import MfsEntry
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.store import ContentStore
from support.clients import ask
from support.mlflow_server import clean_environment
from support.storages import check_sound

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

CLIENTS = 3
BUSY_SECONDS = 6
FEWEST_BACKUPS = 3
GC_PAUSE_SECONDS = 0.1
SIZES_BYTES = (100, 70_000, (1 << 20) + 5)


def content(name: str, edition: int) -> bytes:
    """What a file of that name has in its n-th edition."""
    chance = random.Random(f"{name} {edition}")
    return json.dumps([name, edition]).encode() + b"\n" + chance.randbytes(chance.choice(SIZES_BYTES))


@dataclass
class Clients:
    """Clients that tell the tracking server what they have done only after it is done, and what they undo before."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)

    def upload(self, path: str, data: bytes) -> None:
        answer = ask(f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}", method="PUT", body=data)
        assert answer.status == 200, answer

    def work(self, number: int) -> int:
        """Returns how many model versions it made."""
        client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)
        name = f"model-{number}"
        client.create_registered_model(name)
        made: list[tuple[str, str]] = []
        for count in itertools.count(1):
            run = client.create_run("0")
            run_id, place = run.info.run_id, str(run.info.artifact_uri).removeprefix("mlflow-artifacts:/")
            for edition in (1, 2):
                for file in ("weights.bin", "MLmodel"):
                    self.upload(f"{place}/model/{file}", content(f"{run_id}/{file}", edition))
                client.set_tag(run_id, "edition", edition)
                version = client.create_model_version(
                    name, f"{run.info.artifact_uri}/model", run_id, await_creation_for=0
                )
                made.append((name, version.version))
            if count % 2:
                client.set_tag(run_id, "deleted", "true")
                answer = ask(f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{place}/model", method="DELETE")
                assert answer.status == 200, answer
            client.delete_model_version(*made.pop(0))
            if self.stop.is_set():
                return len(made)
        raise AssertionError


@dataclass(frozen=True)
class Operator:
    """Somebody with a shell on the server's machine."""

    folder: Path

    def back_up(self) -> None:
        database = f"sqlite:///{self.folder}/mlflow.db"
        done = subprocess.run(
            [sys.executable, "-m", "mlflow_ipfs", "backup", "backup", "--backend-store-uri", database],
            env=clean_environment(MLFLOW_IPFS_STORE=f"local:{self.folder}/store"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def collect_until(self, stop: threading.Event) -> None:
        with open_local_storage(self.folder / "store", create=False) as storage:
            while not stop.wait(GC_PAUSE_SECONDS):
                storage.collect_garbage(grace_seconds=0)

    def back_up_and_restore(self, name: str) -> Path:
        self.back_up()
        target = self.folder / name
        _, report = restore_backup(
            self.folder / "backup", target / "store", sqlalchemy.make_url(f"sqlite:///{target}/mlflow.db")
        )
        assert report is not None
        assert report.problems == ()
        return target


def check_restored(folder: Path) -> tuple[int, int]:
    """What the database names is in the store, byte for byte. Returns how many runs and versions it names."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        runs = connection.execute(
            "SELECT r.run_uuid, r.artifact_uri, e.value, d.value FROM runs r"
            " JOIN tags e ON e.run_uuid = r.run_uuid AND e.key = 'edition'"
            " LEFT JOIN tags d ON d.run_uuid = r.run_uuid AND d.key = 'deleted'"
        ).fetchall()
        versions = connection.execute(
            "SELECT name, version, storage_location FROM model_versions WHERE current_stage != 'Deleted_Internal'"
        ).fetchall()
    storage = open_local_storage(folder / "store", create=False)
    with ContentStore(storage) as store:
        check_sound(storage)
        for run_id, uri, edition, deleted in runs:
            if deleted is None:
                place = MfsPath("mlflow", f"{uri.removeprefix('mlflow-artifacts:/')}/model")
                check_artifacts(store, place, run_id, int(edition))
        for name, version, location in versions:
            cid = cid_of_location(location)
            assert cid is not None, (name, version, location)
            assert store.verify(cid).ok, (name, version)
            assert list(store.pins.list(cid=cid)), (name, version)
            with store.open(cid, "weights.bin") as opened:
                data = opened.read()
            assert data == content(*json.loads(data[: data.index(b"\n")]))
        store.collect_garbage()
        check_sound(storage)
    return len(runs), len(versions)


def check_artifacts(store: ContentStore, place: MfsPath, run_id: str, edition: int) -> None:
    for file in ("weights.bin", "MLmodel"):
        entry = store.storage.entries.stat(place.root, f"{place.path}/{file}")
        assert isinstance(entry, MfsEntry), place
        with store.open(entry.cid) as opened:
            data = opened.read()
        told = json.loads(data[: data.index(b"\n")])
        assert told[0] == f"{run_id}/{file}"
        assert told[1] >= edition, "older than what the database tells"
        assert data == content(*told)


def test_every_backup_of_a_busy_server_is_whole(mlflow_server: StartServer, database: Path, tmp_path: Path) -> None:
    open_local_storage(tmp_path / "store").close()
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", "mfs://mlflow"),
        env={"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store"},
    )
    clients, operator = Clients(server.url), Operator(tmp_path)
    restored: list[Path] = []
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        try:
            work = [pool.submit(clients.work, number) for number in range(CLIENTS)]
            gc = pool.submit(operator.collect_until, clients.stop)
            end = time.monotonic() + BUSY_SECONDS
            while time.monotonic() < end or len(restored) < FEWEST_BACKUPS:
                restored.append(operator.back_up_and_restore(f"restored-{len(restored)}"))
        finally:
            clients.stop.set()
        made = [future.result() for future in work]
        gc.result()
    found = [check_restored(folder) for folder in restored]
    assert found == sorted(found)
    assert found[-1][0] > CLIENTS, f"hardly anything was in the backups: {found}"
    assert all(made)
    check_mlflow_reads(restored[-1], found[-1])


def check_mlflow_reads(folder: Path, found: tuple[int, int]) -> None:
    """MLflow itself, which checks the schema first, finds in the restored database what is there."""
    url = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=url, registry_uri=url)
    versions = client.search_model_versions(max_results=1000)
    assert len(versions) == min(found[1], 1000)
    assert all(version.run_id and client.get_run(version.run_id) for version in versions[:5])
