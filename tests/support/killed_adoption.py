"""Adoption that is killed at one step after another, in children of one process that has loaded MLflow only once.

A program: its arguments are a database, the number of steps between two kills, and options of `adopt`. It prints the
number of kills.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

import sqlalchemy

from mlflow_ipfs import opening
from mlflow_ipfs.cli import main
from mlflow_ipfs.content.storage.local import open_local_storage
from support.faulty_disk import KillingDisk
from support.processes import fork_child
from support.stock_sites import read_site

MAX_ROUNDS = 400


class _KillingDisk(KillingDisk):
    """Disk that counts the commits of MLflow's database as steps, too: a kill comes before or after a commit."""

    def count_commits(self) -> None:
        for event in ("begin", "commit"):
            sqlalchemy.event.listen(sqlalchemy.Engine, event, self._count)

    def _count(self, _: Any) -> None:
        self._step("commit of MLflow")


def adopt(arguments: list[str], steps: int) -> None:
    disk = _KillingDisk(steps)
    disk.count_commits()
    vars(opening)["open_local_storage"] = partial(open_local_storage, disk=disk)
    try:
        main(["adopt", *arguments])
    except SystemExit as end:
        os._exit(int(end.code or 0))


def check(uri: str, expected: dict[str, dict[str, bytes]]) -> None:
    assert read_site(f"ipfs+{uri}") == expected


def run_child(work: Any) -> int:
    _, status = os.waitpid(fork_child(work), 0)
    return status


def kill_again_and_again(uri: str, stride: int, options: list[str]) -> int:
    # The expected content is read in a child: no connection to the database may be inherited.
    reader, writer = os.pipe()
    assert run_child(lambda: os.write(writer, repr(read_site(uri)).encode())) == 0
    os.close(writer)
    with os.fdopen(reader) as file:
        expected = eval(file.read())
    for number in range(MAX_ROUNDS):
        status = run_child(partial(adopt, ["--backend-store-uri", uri, *options], number * stride))
        assert run_child(partial(check, uri, expected)) == 0, f"wrong after a kill at step {number * stride}"
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return number
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError(f"not done after {MAX_ROUNDS} kills")


if __name__ == "__main__":
    sys.stdout.write(f"{kill_again_and_again(sys.argv[1], int(sys.argv[2]), sys.argv[3:])}\n")
