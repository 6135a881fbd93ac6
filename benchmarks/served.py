"""Two real `mlflow server`s for the benchmarks, ours at L1 and a stock one; transfers over plain HTTP; a watch for temporary files."""

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
    from collections.abc import Iterator

PIECE_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 300


@dataclass(frozen=True)
class Served:
    """A server and the directory for its temporary files."""

    server: MlflowServer
    temporary: Path

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own for each transfer."""
        return http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=TIMEOUT_SECONDS)

    def download(self, name: str, part: str | None = None) -> tuple[int, int]:
        """Get an artifact, or a part of it, and drop it. The status and how many bytes it was."""
        connection = self.connect()
        buffer = memoryview(bytearray(PIECE_BYTES))
        with contextlib.closing(connection):
            connection.request("GET", _place(name), headers={"Range": part} if part else {})
            answer = connection.getresponse()
            received = 0
            while count := answer.readinto(buffer):
                received += count
            return answer.status, received

    def upload(self, name: str, source: Path) -> None:
        """Put a file, and wait for the answer."""
        with contextlib.closing(self.connect()) as connection, source.open("rb") as body:
            size_bytes = os.fstat(body.fileno()).st_size
            connection.blocksize = PIECE_BYTES
            connection.request("PUT", _place(name), body=body, headers={"Content-Length": str(size_bytes)})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.client.OK:
                sys.exit(f"the upload was answered with {answer.status}: {text.decode()}")

    @contextlib.contextmanager
    def without_temporary_files(self) -> Iterator[None]:
        """End the benchmark if the server has a large temporary file meanwhile, be it one without a name."""
        with watch_temporary_files(self.temporary, self.server.pid) as found:
            yield
        if found:
            sys.exit(f"the server made temporary files: {found}")


def _place(name: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/bench/{name}"


@contextlib.contextmanager
def run_servers(directory: Path) -> Iterator[tuple[Served, Served]]:
    """Ours at L1, and stock MLflow with local artifacts; stock MLflow's own environment if there is one."""
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
    """Make durable what a stock server has written, as ours is when it answers."""
    [path] = (directory / "stock" / "artifacts").rglob(name)
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
