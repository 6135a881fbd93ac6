"""Processes that tests start: waits with a time limit, and termination by process id."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 0.05


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now.

    The port is below the range that systems use for outgoing connections, so that such a connection cannot use the port
    before the server listens on it.
    """
    for _ in range(100):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    msg = "no free port among 100 between 15000 and 32000"
    raise OSError(msg)


def wait_until(condition: Callable[[], object], *, timeout_seconds: float, what: str) -> None:
    """Poll until ``condition()`` is true.

    Raises:
        TimeoutError: the condition was not true within the limit; the message contains ``what``.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout_seconds} s"
            raise TimeoutError(msg)
        time.sleep(POLL_SECONDS)


def start_process(command: list[str | Path], *, env: dict[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a new process group. Append its output to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_process(process: subprocess.Popen[bytes], *, grace_seconds: float = 15) -> None:
    """End a process of ``start_process`` and all its descendants, first with SIGTERM, then with SIGKILL."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    _signal_group(process, signal.SIGKILL)  # also ends workers that have outlived the leader
    process.wait(grace_seconds)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def fork_child(work: Callable[[], object]) -> int:
    """Run a function in a forked child. Return the process id of the child, for which the caller must wait."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - a forked child must never continue in pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def read_tail(log: Path, *, lines: int = 60) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
