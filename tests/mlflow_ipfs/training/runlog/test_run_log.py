"""The run log: everything arrives once, in order, and the caller never waits."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_ipfs.training.runlog import run_log
from mlflow_ipfs.training.runlog.opening import list_run_logs, sync_run_logs
from support.run_targets import MemoryTarget, open_log

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE_SECONDS = 30.0  # what would wait takes minutes, or never ends; a machine under load is slow


@pytest.fixture
def target() -> MemoryTarget:
    return MemoryTarget()


def test_all_of_it_arrives_in_order_in_few_requests_and_nothing_stays(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)
    log.log_params({"lr": 0.1, "layers": [1, 2]})
    log.set_tags({"team": "a"})
    for step in range(5000):
        log.log_metrics({"loss": 1 / (step + 1), "acc": step}, step)
    log.log_artifact("inference/latency.json", b"{}")
    report = log.close("FINISHED")
    assert (report.run_id, report.logged, report.dropped, report.spool) == ("r", 10_000, 0, None)
    assert target.values("loss") == [(step, 1 / (step + 1)) for step in range(5000)]
    assert (target.params, target.tags) == ({"lr": "0.1", "layers": "[1, 2]"}, {"team": "a"})
    assert target.artifacts == {"inference/latency.json": b"{}"}
    assert [(run, status) for run, status, _ in target.finished] == [("r", "FINISHED")]
    assert len(target.request_sizes) < 20
    assert max(target.request_sizes) <= 1000
    assert list(tmp_path.iterdir()) == []
    assert log.close() is report, "a second close is a no-op"


def test_a_new_run_is_created_once(target: MemoryTarget, tmp_path: Path) -> None:
    with open_log(target, tmp_path, run_id=None) as log:
        assert log.run_id is None
        log.log_metrics({"a": 1.0})
        assert log.flush(5)
        assert log.run_id == "run-1"
    assert target.runs == {log.run_key: "run-1"}


class Tensor:
    """A scalar on a device: reading it waits for the device, which the training thread must not do."""

    def __init__(self, value: float, owner: int) -> None:
        self._value = value
        self._owner = owner
        self.is_detached = False

    def detach(self) -> Tensor:
        detached = Tensor(self._value, self._owner)
        detached.is_detached = True
        return detached

    def item(self) -> float:
        assert threading.get_ident() != self._owner, "read on the training thread"
        assert self.is_detached, "the graph of the batch would be kept"
        return self._value


def test_tensors_are_read_on_another_thread(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)
    log.log_metrics({"loss": Tensor(0.5, threading.get_ident())}, 3)
    deadline = time.monotonic() + 60
    while not target.values("loss") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert target.values("loss") == [(3, 0.5)]
    log.close()


def test_odd_values_and_names(target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = open_log(target, tmp_path)
    values: dict[str, Any] = {
        "nan": math.nan,
        "inf": math.inf,
        "low": -math.inf,
        "yes": True,
        "text": "x",
        "none": None,
    }
    log.log_metrics(values | {"a b/c-d.e:f": 1, "ünï(code)": 2, "x" * 300: 3, "huge": 10**400}, 1)
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        report = log.close()
    stored = {point.key: point.value for _, point in target.points}
    assert math.isnan(stored.pop("nan"))
    assert stored == {"inf": math.inf, "low": -math.inf, "yes": 1, "a b/c-d.e:f": 1, "ünï_code_": 2, "x" * 250: 3}
    assert (report.logged, report.dropped) == (10, 3)
    for name in ("text", "none", "huge"):
        assert f"'{name}' was dropped" in caplog.text


def test_two_names_never_become_one(target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = open_log(target, tmp_path)
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        log.log_metrics({"损失": 1, "精度": 2, "two(1)": 3, "two[1]": 4, "y" * 250 + "a": 5, "y" * 250 + "b": 6})
        log.close()
    stored = {point.key: point.value for _, point in target.points}
    assert sorted(stored.values()) == [1, 2, 3, 4, 5, 6]
    assert {"损失", "精度", "two_1_", "y" * 250} <= stored.keys()
    assert "because another metric has its name" in caplog.text


def test_a_step_that_mlflow_cannot_store_costs_its_point_alone(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)
    for step in (2**63, -(2**63) - 1, 2**63 - 1):
        log.log_metrics({"m": 1}, step)
    report = log.close()
    assert [point.step for _, point in target.points] == [2**63 - 1]
    assert report.dropped == 2


def test_one_bad_point_does_not_lose_its_batch(
    target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target.refused_keys = {"m13", "m777"}
    log = open_log(target, tmp_path)
    log.log_metrics({f"m{number}": number for number in range(900)}, 0)
    log.log_metrics({f"m{number}": number for number in range(900)}, 1)
    report = log.close()
    assert (report.logged, report.dropped, report.spool) == (1800, 4, None)
    assert len(target.points) == 1796
    assert caplog.text.count("'m13' of run r was dropped") == 1, "once a name"


def test_ten_thousand_names(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)
    for step in range(3):
        log.log_metrics({f"layer/{number}/norm": number for number in range(10_000)}, step)
    assert log.close().dropped == 0
    assert len(target.points) == 30_000


def test_mlflow_that_is_away_costs_the_caller_nothing(target: MemoryTarget, tmp_path: Path) -> None:
    target.is_away = True
    log = open_log(target, tmp_path, run_id=None)
    started = time.monotonic()
    for step in range(1000):
        log.log_metrics({"loss": step}, step)
    assert time.monotonic() - started < AT_ONCE_SECONDS
    report = log.close("FINISHED", timeout_seconds=0.5)
    assert report.run_id is None
    assert report.spool is not None
    [before] = list_run_logs(tmp_path)
    assert (before.points, before.is_in_use) == (1000, False)
    assert [state.problem for state in sync_run_logs(tmp_path, "memory:", target=target)] == [
        "MLflow could not be reached: connection refused"
    ]
    target.is_away = False
    [after] = sync_run_logs(tmp_path, "memory:", target=target)
    assert (after.points, after.problem) == (0, None)
    assert target.values("loss") == [(step, step) for step in range(1000)]
    assert [status for _, status, _ in target.finished] == ["FINISHED"]
    assert list(tmp_path.iterdir()) == []


def test_sync_asks_an_mlflow_that_is_away_once(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.is_away = True
    for step in range(3):
        log = open_log(target, tmp_path)
        log.log_metrics({"loss": step}, step)
        log.close(timeout_seconds=0)
    asked: list[str] = []
    answer = target._answer

    def count(**options: bool) -> None:
        asked.append("once")
        answer(**options)

    monkeypatch.setattr(target, "_answer", count)
    states = list(sync_run_logs(tmp_path, "memory:", target=target))
    assert [state.problem for state in states] == ["MLflow could not be reached: connection refused"] * 3
    assert asked == ["once"]
    target.is_away = False
    assert [state.problem for state in sync_run_logs(tmp_path, "memory:", target=target)] == [None] * 3


def test_mlflow_that_comes_back_gets_everything(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "_FIRST_RETRY_SECONDS", 0.05)
    target.is_away = True
    log = open_log(target, tmp_path)
    log.log_metrics({"loss": 1.0}, 1)
    assert not log.flush(0.3)
    target.is_away = False
    log.log_metrics({"loss": 2.0}, 2)
    assert log.flush(10)
    assert target.values("loss") == [(1, 1.0), (2, 2.0)]
    log.close()


def test_a_call_that_hangs_does_not_hold_up_the_end(target: MemoryTarget, tmp_path: Path) -> None:
    target.gate.clear()
    log = open_log(target, tmp_path)
    log.log_metrics({"loss": 1.0}, 1)
    started = time.monotonic()
    report = log.close(timeout_seconds=0.3)
    assert time.monotonic() - started < AT_ONCE_SECONDS
    assert report.spool is not None
    target.gate.set()
    deadline = time.monotonic() + 60
    while report.spool.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not report.spool.exists(), "the call that hung has sent it after all"


def test_a_lost_answer_makes_no_duplicates(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "_FIRST_RETRY_SECONDS", 0.05)
    target.lose_answers = 2
    log = open_log(target, tmp_path)
    log.log_metrics({"loss": 1.0}, 1)
    assert log.close().dropped == 0
    assert len(target.request_sizes) == 3
    assert target.values("loss") == [(1, 1.0)]


def test_a_deleted_run_is_said_and_its_points_stay(
    target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target.is_gone = True
    log = open_log(target, tmp_path)
    log.log_metrics({"loss": 1.0}, 1)
    report = log.close()
    assert report.spool is not None
    assert "the run was deleted" in caplog.text
    target.is_gone = False  # it was restored
    assert [state.points for state in sync_run_logs(tmp_path, "memory:", target=target)] == [0]
    assert target.values("loss") == [(1, 1.0)]


def test_beyond_the_limit_on_disk_points_are_dropped_and_counted(
    target: MemoryTarget, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target.is_away = True
    log = open_log(target, tmp_path, spool_bytes=50_000)
    for step in range(20):
        log.log_metrics({f"m{number}": number for number in range(500)}, step)
        log.drain()
    report = log.close(timeout_seconds=0)
    assert 0 < report.dropped < report.logged == 10_000
    assert f"{report.dropped} of 10000 points" in caplog.text
    target.is_away = False
    list(sync_run_logs(tmp_path, "memory:", target=target))
    assert len(target.points) == 10_000 - report.dropped


def test_a_full_disk_stops_nothing(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(target, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", _raise_full)
        log.log_metrics({"loss": 1.0}, 1)
        log.drain()
    log.log_metrics({"loss": 2.0}, 2)
    report = log.close()
    assert report.dropped == 1
    assert "No space left" in caplog.text
    assert target.values("loss") == [(2, 2.0)]


def _raise_full(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_memory_is_bounded_without_the_writer(target: MemoryTarget, tmp_path: Path) -> None:
    target.is_away = True
    log = open_log(target, tmp_path)
    for step in range(2 * run_log.MAX_QUEUED + 10):
        log.log_metrics({"loss": 1.0}, step)
        assert len(log._queue) <= run_log.MAX_QUEUED + 1
    log.close(timeout_seconds=0)


def test_many_threads(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)

    def log_some(thread: int) -> None:
        for step in range(2000):
            log.log_metrics({f"t{thread}": step}, step)

    threads = [threading.Thread(target=log_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close().logged == 8000
    for number in range(4):
        assert target.values(f"t{number}") == [(step, step) for step in range(2000)]


def test_time_never_goes_back(target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(target, tmp_path)
    log.log_metrics({"a": 1})
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    log.log_metrics({"a": 2})
    log.close()
    first, second = [point.timestamp for _, point in target.points]
    assert 0 < first <= second


def test_two_processes_never_share_a_spool(target: MemoryTarget, tmp_path: Path) -> None:
    log = open_log(target, tmp_path)
    [state] = list_run_logs(tmp_path)
    assert state.is_in_use
    [after] = sync_run_logs(tmp_path, "memory:", target=target)
    assert after.is_in_use
    log.close()


def test_spools_of_another_mlflow_are_not_sent(target: MemoryTarget, tmp_path: Path) -> None:
    target.is_away = True
    log = open_log(target, tmp_path)
    log.log_metrics({"a": 1})
    log.close(timeout_seconds=0)
    target.is_away = False
    [state] = sync_run_logs(tmp_path, "http://elsewhere", target=target)
    assert "it belongs to memory:" in str(state.problem)
    assert target.points == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_spool_cut_anywhere_keeps_what_was_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    target = MemoryTarget(is_away=True)
    log = open_log(target, directory)
    for step in range(5):
        log.log_metrics({"a": step}, step)
        log.drain()
    report = log.close(timeout_seconds=0)
    assert report.spool is not None
    [segment] = report.spool.glob("*.jsonl")
    cut = data.draw(st.integers(0, segment.stat().st_size))
    complete = segment.read_bytes()[:cut].count(b"\n")
    os.truncate(segment, cut)
    target.is_away = False
    [state] = sync_run_logs(directory, "memory:", target=target)
    assert state.points == 0
    assert target.values("a") == [(step, step) for step in range(complete)]


def test_segments_are_deleted_when_they_are_sent(
    target: MemoryTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_ipfs.training.runlog.spool.SEGMENT_BYTES", 2000)
    log = open_log(target, tmp_path)
    for step in range(300):
        log.log_metrics({"a": step}, step)
        log.drain()
    assert log.flush(10)
    assert len(list((tmp_path / log.id).glob("*.jsonl"))) <= 2
    log.close()
    assert target.values("a") == [(step, step) for step in range(300)]
