"""`kill -9` of a whole server while clients upload: every acknowledged upload is kept after the restart."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.clients import ask
from support.mlflow_server import MlflowServer, run_mlflow_server
from support.processes import wait_until
from support.storages import check_sound

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.server

CLIENTS = 6
ROUND_UPLOADS = 30  # acknowledged before the kill, and again after it
SIZES_BYTES = (0, 100, 70_000, 1 << 20, (2 << 20) + 5)
ARTIFACTS = "1/run/artifacts"


def content(name: str) -> bytes:
    """Return the content of the file with a name. Sizes vary, and all contents differ."""
    chance = random.Random(name)
    return name.encode() + chance.randbytes(chance.choice(SIZES_BYTES))


@dataclass
class Uploads:
    """Clients that upload until they are stopped, whether or not a server is running.

    Attributes:
        url: where the server is.
        acknowledged: names whose upload the server answered with 200.
        cut: names whose upload began, but got no answer.
        refused: other answers than 200, of which there must be none.
    """

    url: str
    acknowledged: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def artifact(self, name: str) -> str:
        return f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{ARTIFACTS}/{name}"

    def upload_until_stopped(self, client: int) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            name = f"client-{client}/{number % 3}/{number}.bin"
            try:
                answer = ask(self.artifact(name), method="PUT", body=content(name))
            except (OSError, http.client.HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                if not isinstance(reason, ConnectionRefusedError):
                    self.cut.append(name)
                self.stop.wait(0.25)
                continue
            if answer.status == 200:
                self.acknowledged.append(name)
            else:
                self.refused.append(f"{name}: {answer.status} {answer.body[:300]!r}")

    def wait_for_more(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal or self.refused, timeout_seconds=60, what=f"{goal} uploads")


def start_server(directory: Path, database: Path) -> AbstractContextManager[MlflowServer]:
    arguments = (
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--registry-store-uri", f"ipfs+sqlite:///{database}"),
        *("--artifacts-destination", "mfs://mlflow"),
    )
    return run_mlflow_server(directory, *arguments, env={"MLFLOW_IPFS_STORE": f"local:{directory}/store"})


def test_acknowledged_uploads_outlive_a_killed_server(database: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool, start_server(tmp_path, database) as first:
        uploads = Uploads(first.url)
        try:
            clients = [pool.submit(partial(uploads.upload_until_stopped, client)) for client in range(CLIENTS)]
            uploads.wait_for_more(ROUND_UPLOADS)
            os.killpg(first.pid, signal.SIGKILL)
            before = len(uploads.acknowledged)
            with start_server(tmp_path, database) as second:
                uploads.url = second.url
                uploads.wait_for_more(ROUND_UPLOADS)
                uploads.stop.set()
                for client in clients:
                    client.result(60)
                assert uploads.refused == []
                assert uploads.cut, "the kill met no upload: this test shows nothing"
                assert len(uploads.acknowledged) >= before + ROUND_UPLOADS
                for name in uploads.acknowledged:
                    answer = ask(uploads.artifact(name))
                    assert (answer.status, answer.body == content(name)) == (200, True), name
                for name in uploads.cut:  # whole or not there, never a part
                    answer = ask(uploads.artifact(name))
                    assert answer.status == 404 or (answer.status, answer.body) == (200, content(name)), name
                os.killpg(second.pid, signal.SIGKILL)  # so that nothing tidies up before the store is looked at
        finally:
            uploads.stop.set()
    check_store(tmp_path / "store", uploads)


def check_store(directory: Path, uploads: Uploads) -> None:
    """Check that the store is undamaged and has exactly the uploaded content, also after a gc."""
    storage = open_local_storage(directory)
    with ContentStore(storage) as store:
        check_sound(storage)
        store.collect_garbage()
        check_sound(storage)
        names = {entry.path.removeprefix(f"{ARTIFACTS}/") for entry in storage.entries.walk("mlflow", "")}
        assert set(uploads.acknowledged) <= names <= {*uploads.acknowledged, *uploads.cut}
        assert store.verify(store.files.snapshot(MfsPath("mlflow")).cid).ok
        assert list((directory / "quarantine").glob("*")) == []
