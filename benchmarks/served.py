"""Real `mlflow server` processes for the benchmarks: one with this package at L1, and one with stock MLflow.

Also transfers over plain HTTP, and a check for temporary files.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.mlflow_server import MlflowServer, run_mlflow_server
from support.temporary_files import watch_temporary_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIECE_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 300


@dataclass(frozen=True)
class Served:
    """Server and the directory for its temporary files."""

    server: MlflowServer
    temporary: Path

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection. Each transfer uses its own."""
        return http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=TIMEOUT_SECONDS)

    def download(self, name: str, part: str | None = None) -> tuple[int, int]:
        """Download an artifact, or a part of it, and drop the data. Return the status and the number of bytes."""
        connection = self.connect()
        buffer = memoryview(bytearray(PIECE_BYTES))
        with contextlib.closing(connection):
            connection.request("GET", _artifact_path(name), headers={"Range": part} if part else {})
            answer = connection.getresponse()
            received = 0
            while count := answer.readinto(buffer):
                received += count
            return answer.status, received

    def upload(self, name: str, source: Path) -> None:
        """Upload a file and wait for the answer."""
        with contextlib.closing(self.connect()) as connection, source.open("rb") as body:
            size_bytes = os.fstat(body.fileno()).st_size
            connection.blocksize = PIECE_BYTES
            connection.request("PUT", _artifact_path(name), body=body, headers={"Content-Length": str(size_bytes)})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.client.OK:
                sys.exit(f"the upload was answered with {answer.status}: {text.decode()}")

    def upload_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Upload small files one after the other over one connection."""
        with contextlib.closing(self.connect()) as connection:
            for name, data in files:
                connection.request("PUT", _artifact_path(name), body=data)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != http.client.OK:
                    sys.exit(f"the upload of {name} was answered with {answer.status}: {text.decode()}")

    @contextlib.contextmanager
    def without_temporary_files(self) -> Iterator[None]:
        """End the benchmark if the server has a large temporary file meanwhile, even an unlinked one."""
        with watch_temporary_files(self.temporary, self.server.pid) as found:
            yield
        if found:
            sys.exit(f"the server made temporary files: {found}")


def _artifact_path(name: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/bench/{name}"


@contextlib.contextmanager
def run_servers(directory: Path) -> Iterator[tuple[Served, Served]]:
    """Run our server at L1 and a stock server with local artifacts. Yield both.

    The stock server uses the environment ``.venv-stock`` if it exists.
    """
    stock_python = ROOT / ".venv-stock" / "bin" / "python"
    with contextlib.ExitStack() as running:
        servers = []
        for name, registry, destination, python, env in (
            ("ours", "ipfs+sqlite", "mfs://mlflow", None, {"PYTHONPATH": str(ROOT)}),
            ("stock", "sqlite", f"{directory}/stock/artifacts", stock_python if stock_python.exists() else None, {}),
        ):
            own, temporary = directory / name, directory / name / "tmp"
            temporary.mkdir(parents=True)
            arguments = (
                *("--backend-store-uri", f"sqlite:///{own}/mlflow.db"),
                *("--registry-store-uri", f"{registry}:///{own}/mlflow.db"),
                *("--artifacts-destination", destination),
            )
            settings = {"MLFLOW_IPFS_STORE": f"local:{own}/store", "TMPDIR": str(temporary), **env}
            server = run_mlflow_server(own, *arguments, env=settings, python=python)
            servers.append(Served(running.enter_context(server), temporary))
        yield servers[0], servers[1]


def sync_artifact(directory: Path, name: str) -> None:
    """Sync an artifact that the stock server has written. Our server has synced its artifacts when it answers."""
    artifact = directory / "stock" / "artifacts" / "bench" / name
    for path in (artifact, artifact.parent):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
