"""Run logs of processes that are killed, terminated or forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.training.runlog.opening import list_run_logs, sync_run_logs
from support.run_targets import MemoryTarget, open_log

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[3]
LIMIT_SECONDS = 300

TRAIN = """
import sys, time
from pathlib import Path
from support.run_targets import MemoryTarget, open_log
target = MemoryTarget(is_away=True)
log = open_log(target, Path(sys.argv[1]), run_id=None, close_seconds=0.2)
for step in range(100):
    log.log_metrics({"loss": step}, step)
if sys.argv[2] == "drained":
    log.drain()
print("ready", flush=True)
if sys.argv[2] == "raises":
    raise RuntimeError("training failed")
if sys.argv[2] == "waits":
    time.sleep(60)
if sys.argv[2] == "drained":
    time.sleep(60)
"""


@pytest.fixture
def trainings() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(trainings: list[subprocess.Popen[bytes]], directory: Path, how: str) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(directory), how], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    trainings.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("how", "end"),
    [("drained", signal.SIGKILL), ("waits", signal.SIGTERM), ("raises", None), ("ends", None)],
)
def test_every_point_of_a_process_that_ends_is_sent_later(
    how: str, end: int | None, trainings: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start(trainings, tmp_path, how)
    if end is not None:
        process.send_signal(end)
    code = process.wait(LIMIT_SECONDS)
    assert code == (-end if end is not None else int(how == "raises"))
    target = MemoryTarget()
    for _ in range(2):  # a second sync has nothing to do
        for state in sync_run_logs(tmp_path, "memory:", target=target):
            assert state.problem is None
    assert target.values("loss") == [(step, step) for step in range(100)]
    if end == signal.SIGTERM:
        assert [status for _, status, _ in target.finished] == ["KILLED"]
    assert list(list_run_logs(tmp_path)) == []


def test_a_handler_of_the_user_still_runs(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
from support.run_targets import MemoryTarget, open_log
log = open_log(MemoryTarget(), Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGTERM)
log.log_metrics({"after": 1})
assert log.close().spool is None
print("went on")
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["mine", "went", "on"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_logs_nothing_and_harms_nothing(tmp_path: Path) -> None:
    target = MemoryTarget()
    log = open_log(target, tmp_path)
    child = os.fork()
    if child == 0:
        log.log_metrics({"child": 1.0})
        log.close()
        os._exit(0)
    deadline = time.monotonic() + LIMIT_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.log_metrics({"parent": 1.0})
    assert log.close().spool is None
    assert (target.values("child"), target.values("parent")) == ([], [(0, 1.0)])
