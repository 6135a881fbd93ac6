"""Real Kubo: repositories for single commands, and an offline daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.processes import read_tail, start_process, stop_process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

V1_2025 = "unixfs-v1-2025"
V0_2015 = "unixfs-v0-2015"

COMMAND_TIMEOUT_SECONDS = 60
START_TIMEOUT_SECONDS = 240


class KuboCommandError(AssertionError):
    """Error that `ipfs` exited with an error; the message contains its output."""


@dataclass(frozen=True)
class KuboRepository:
    """Separate Kubo repository in a temporary directory. Call it like the command: ``ipfs("add", path)``."""

    binary: Path
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment that Kubo needs, without settings of the user's own node."""
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        return kept | {"IPFS_PATH": str(self.path), "HOME": str(self.path.parent), "IPFS_TELEMETRY": "off"}

    def run(self, *arguments: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> bytes:
        """Run one `ipfs` command.

        Returns:
            The standard output of the command.

        Raises:
            KuboCommandError: the command failed.
        """
        done = subprocess.run(
            [self.binary, *arguments],
            env=self.environment,
            cwd=cwd,
            input=stdin or b"",
            capture_output=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            errors = done.stderr.decode(errors="replace").strip()
            msg = f"ipfs {' '.join(map(str, arguments))}: exit {done.returncode}: {errors}"
            raise KuboCommandError(msg)
        return done.stdout

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> str:
        """Run one `ipfs` command. Return its output as text, without the last line end."""
        return self.run(*arguments, stdin=stdin, cwd=cwd).decode().rstrip("\n")


@dataclass(frozen=True)
class KuboDaemon(KuboRepository):
    """Repository with an offline daemon, which executes the commands.

    Attributes:
        api_url: base URL of the RPC API, ``http://127.0.0.1:<port>``.
        gateway_url: base URL of the gateway, ``http://127.0.0.1:<port>``.
    """

    api_url: str
    gateway_url: str


def init_repository(binary: Path, path: Path, profile: str) -> KuboRepository:
    """Make a repository with one of the profiles of IPIP-0499, which announces no content to the network."""
    repository = KuboRepository(binary, path)
    repository("init", f"--profile={profile},test")  # `test`: listens on 127.0.0.1 only, no bootstrap peers
    return repository


@contextlib.contextmanager
def run_daemon(repository: KuboRepository) -> Iterator[KuboDaemon]:
    """Run an offline daemon on ports that the system chooses. The daemon is stopped when the block ends."""
    repository("config", "Addresses.API", "/ip4/127.0.0.1/tcp/0")
    repository("config", "Addresses.Gateway", "/ip4/127.0.0.1/tcp/0")
    log = repository.path.parent / f"{repository.path.name}.log"
    command: list[str | Path] = [repository.binary, "daemon", "--offline"]
    process = start_process(command, env=repository.environment, cwd=repository.path.parent, log=log)
    try:
        yield _wait_for_daemon(repository, process, log)
    finally:
        stop_process(process)


def _wait_for_daemon(repository: KuboRepository, process: subprocess.Popen[bytes], log: Path) -> KuboDaemon:
    def is_ready() -> bool:
        if process.poll() is not None:
            msg = f"the Kubo daemon ended with {process.returncode}:\n{read_tail(log)}"
            raise RuntimeError(msg)
        return "Daemon is ready" in log.read_text(errors="replace")

    wait_until(is_ready, timeout_seconds=START_TIMEOUT_SECONDS, what="the Kubo daemon is ready")
    _, _, host, _, port = (repository.path / "api").read_text().strip().split("/")
    gateway = (repository.path / "gateway").read_text().strip()
    daemon = KuboDaemon(repository.binary, repository.path, f"http://{host}:{port}", gateway.rstrip("/"))
    request = urllib.request.Request(f"{daemon.api_url}/api/v0/version", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
    return daemon
