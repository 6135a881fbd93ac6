"""A GET of a file that has to be assembled first, and the other requests that the worker answers meanwhile."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local.publishing.object_writer import DEDUPE_BYTES
from mlflow_ipfs.content.system.locking import FileLock
from support.clients import ask
from support.mlflow_server import run_mlflow_server
from support.temporary_files import watch_temporary_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.mlflow_server import MlflowServer

pytestmark = pytest.mark.server

FIRST = random.Random(1).randbytes(DEDUPE_BYTES)
SECOND = random.Random(2).randbytes(1 << 20) + FIRST[1 << 20 :]
RANGE = {"Range": "bytes=1048570-1048583"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server with a single worker, which one blocked event loop would stop."""
    (tmp_path / "tmp").mkdir()
    env = {"MLFLOW_IPFS_STORE": f"local:{tmp_path}/store", "TMPDIR": f"{tmp_path}/tmp"}
    arguments = ("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", "mfs://mlflow")
    with run_mlflow_server(tmp_path, *arguments, env=env, workers=1) as running:
        yield running


def test_a_worker_answers_others_while_it_assembles_a_file(server: MlflowServer, tmp_path: Path) -> None:
    directory = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts"
    for name, data in (("first.bin", FIRST), ("second.bin", SECOND)):
        assert ask(f"{directory}/{name}", method="PUT", body=data).status == 200
    # Who assembles a file holds this lock: the server's thread waits for it as long as this test wants.
    lock = FileLock(tmp_path / "store/cache.lock", timeout_seconds=10, purpose="is testing")
    with watch_temporary_files(tmp_path / "tmp", server.pid) as temporary, ThreadPoolExecutor(1) as pool:
        with lock.exclusive():
            assembled = pool.submit(ask, f"{directory}/second.bin", headers=RANGE)
            for _ in range(10):
                assert ask(f"{server.url}/health").status == 200
                part = ask(f"{directory}/first.bin", headers=RANGE)
                assert (part.status, part.body) == (206, FIRST[1048570:1048584])
            assert not assembled.done()
        answer = assembled.result()
        part = ask(f"{directory}/second.bin", headers=RANGE)
        whole = ask(f"{directory}/second.bin")
    assert (answer.status, answer.body) == (200, SECOND)  # a server may answer a range with the whole
    assert (part.status, part.body) == (206, SECOND[1048570:1048584])
    assert part.headers["content-range"] == f"bytes 1048570-1048583/{len(SECOND)}"
    assert whole.headers["content-length"] == str(len(SECOND))
    assert whole.body == SECOND
    assert temporary == {}
