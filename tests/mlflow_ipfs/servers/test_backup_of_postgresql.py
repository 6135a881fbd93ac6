"""`mlflow-ipfs backup` of a server on PostgreSQL that serves clients, and a second server on the restored backup."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from support.busy_clients import Clients, check_restored, check_served
from support.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from support.mlflow_server import MlflowServer
    from support.postgres import PostgresServer

pytestmark = [pytest.mark.server, pytest.mark.postgres]

CLIENTS = 2
BACKUPS = 2
VERSIONS = 5  # made before each of them


def test_both_are_of_one_moment_and_a_server_goes_on_with_the_copy(
    mlflow_server: StartServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    def start(database: str, store: Path) -> MlflowServer:
        return mlflow_server(
            *("--backend-store-uri", f"ipfs+{database}", "--artifacts-destination", "mfs://mlflow"),
            env={"MLFLOW_IPFS_STORE": f"local:{store}"},
            workers=1,
        )

    database, store = postgres.uri(postgres.create_database()), tmp_path / "store"
    open_local_storage(store).close()
    clients = Clients(start(database, store).url)
    cli = CommandLine(store)
    restored: list[tuple[str, Path]] = []
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        try:
            work = [pool.submit(clients.work, number) for number in range(CLIENTS)]
            for number in range(BACKUPS):
                clients.wait_for_versions(VERSIONS * (number + 1))
                cli("backup", tmp_path / "backup", "--backend-store-uri", f"ipfs+{database}")
                copy = postgres.uri(postgres.create_database()), tmp_path / f"restored-{number}"
                CommandLine(copy[1])("restore", tmp_path / "backup", "--backend-store-uri", copy[0])
                restored.append(copy)
        finally:
            clients.stop.set()
        starting = pool.submit(start, *restored[-1])  # takes long, and others may use the store meanwhile
        found = [check_restored(*copy) for copy in restored]
        assert all(future.result() for future in work)
        server = starting.result()
    assert found == sorted(found)
    assert found[0][1] >= CLIENTS, "hardly anything was in the backups"
    assert sorted(os.listdir(tmp_path / "backup")) == ["backup.json", "backup.lock", "mlflow.dump", "store"]
    assert check_served(server.url, tmp_path / "served") == found[-1][1]
    again = Clients(server.url)
    again.stop.set()
    assert again.work(CLIENTS), "the copy can be written to, too"
