"""`mlflow-ipfs backup` during a gc without grace, and while a server's clients log, overwrite, register and delete."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from mlflow_ipfs.backup.backing_up import restore_backup
from mlflow_ipfs.content.storage.local import open_local_storage
from support.busy_clients import Clients, check_restored, check_served
from support.mlflow_server import clean_environment

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.server

DESTINATION = "mfs://mlflow"
CLIENTS = 3
BUSY_SECONDS = 6
FEWEST_BACKUPS = 3
GC_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Operator:
    """A user with a shell on the server's machine."""

    directory: Path

    def back_up(self) -> None:
        database = f"sqlite:///{self.directory}/mlflow.db"
        done = subprocess.run(
            [sys.executable, "-m", "mlflow_ipfs", "backup", "backup", "--backend-store-uri", database],
            # Before the first artifact is stored, only the setting shows that the server stores them here.
            env=clean_environment(
                MLFLOW_IPFS_STORE=f"local:{self.directory}/store", MLFLOW_ARTIFACTS_DESTINATION=DESTINATION
            ),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def collect_until(self, stop: threading.Event) -> None:
        with open_local_storage(self.directory / "store", create=False) as storage:
            while not stop.wait(GC_PAUSE_SECONDS):
                storage.collect_garbage(grace_seconds=0)

    def back_up_and_restore(self, name: str) -> Path:
        self.back_up()
        target = self.directory / name
        _, report, _ = restore_backup(
            self.directory / "backup", target / "store", sqlalchemy.make_url(f"sqlite:///{target}/mlflow.db")
        )
        assert report is not None
        assert report.problems == ()
        return target


def test_every_backup_of_a_busy_server_is_whole(mlflow_server: StartServer, database: Path, tmp_path: Path) -> None:
    open_local_storage(tmp_path / "store").close()
    server = mlflow_server(
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", DESTINATION),
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
    found = [check_restored(f"sqlite:///{directory}/mlflow.db", directory / "store") for directory in restored]
    assert found == sorted(found)
    assert found[-1][0] > CLIENTS, f"hardly anything was in the backups: {found}"
    assert all(made)
    last = restored[-1]
    copy = mlflow_server(
        *("--backend-store-uri", f"ipfs+sqlite:///{last}/mlflow.db", "--artifacts-destination", DESTINATION),
        env={"MLFLOW_IPFS_STORE": f"local:{last}/store"},
        workers=1,
    )
    assert check_served(copy.url, tmp_path / "served") == found[-1][1]
