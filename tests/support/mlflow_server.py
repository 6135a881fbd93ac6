"""Real `mlflow server` with real worker processes."""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.processes import find_free_port, read_tail, start_process, stop_process, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

START_TIMEOUT_SECONDS = 240  # on a machine that does much else


@dataclass(frozen=True)
class MlflowServer:
    """Running server.

    Attributes:
        url: tracking URI for clients.
        log: file with the output of the server.
        pid: process id of the parent process of the server, which is also the id of its process group.
    """

    url: str
    log: Path
    pid: int

    def read_log(self) -> str:
        """Return the output of the server so far."""
        return self.log.read_text(errors="replace")


def clean_environment(**extra: str) -> dict[str, str]:
    """Return the environment of this process without the user's MLflow settings, plus ``extra``.

    MLflow's job runner is off unless ``extra`` enables it: it adds 5 s to each start, and no test needs jobs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
    return kept | quiet | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | extra


@contextlib.contextmanager
def run_mlflow_server(
    directory: Path,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    workers: int = 2,
    python: Path | None = None,
) -> Iterator[MlflowServer]:
    """Run `mlflow server ARGUMENTS` in ``directory``. The server and its workers are stopped when the block ends.

    Args:
        directory: working directory of the server, which also contains its log.
        arguments: command line after `mlflow server`, without host, port and workers.
        env: settings to add to a clean environment.
        workers: number of worker processes.
        python: interpreter of another environment; the default is the current one.

    Raises:
        RuntimeError: the server ended instead of starting; the message contains the end of its log.
        TimeoutError: the server did not answer in time; the message contains the end of its log.
    """
    port = find_free_port()
    log = directory / f"mlflow-server-{port}.log"
    listen: list[str | Path] = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    command: list[str | Path] = [python or Path(sys.executable), "-m", "mlflow", "server", *listen, *arguments]
    process = start_process(command, env=clean_environment(**(env or {})), cwd=directory, log=log)
    server = MlflowServer(f"http://127.0.0.1:{port}", log, process.pid)
    try:
        _wait_for_server(server, process)
        yield server
    finally:
        stop_process(process)


def _wait_for_server(server: MlflowServer, process: subprocess.Popen[bytes]) -> None:
    def is_healthy() -> bool:
        if process.poll() is not None:
            msg = f"`mlflow server` ended with {process.returncode}:\n{read_tail(server.log)}"
            raise RuntimeError(msg)
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_until(is_healthy, timeout_seconds=START_TIMEOUT_SECONDS, what=f"{server.url} is healthy")
    except TimeoutError as error:
        msg = f"{error}; the end of its log:\n{read_tail(server.log)}"
        raise TimeoutError(msg) from error
