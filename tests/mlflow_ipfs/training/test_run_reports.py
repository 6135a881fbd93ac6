"""The report at the end of a training: it is found by its entry point, and no failure is more than one warning."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

from mlflow_ipfs.errors import RemoteError
from mlflow_ipfs.training.run_reports import write_run_report
from mlflow_ipfs.training.runlog.run_log import RunLogReport
from support.reporters import declared_reporters, offer_reporters
from support.run_targets import MemoryTarget, open_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URI = "sqlite:///mlflow.db"
ENDED = RunLogReport("run-1", 3, 0, None)
COMMAND = f"`mlflow-ipfs report --run run-1 --log-to-run --tracking-uri {URI}`"

CALLS: list[tuple[Any, ...]] = []
RELEASED = threading.Event()


def write_well(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    CALLS.append((run_id, directory, tracking_uri))
    return []


def write_in_part(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    del run_id, directory, tracking_uri
    return ["the latencies are missing: no such file", "more"]


def lose_mlflow(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    del directory, tracking_uri
    msg = f"run {run_id}: MLflow cannot be reached"
    raise RemoteError(msg)


def fail_with_a_password(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    del run_id, directory, tracking_uri
    msg = "no answer from postgresql://user:secret@host/db"
    raise ConnectionError(msg)


def lack_a_library(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    del run_id, directory, tracking_uri
    msg = "No module named 'jinja2'"
    raise ImportError(msg)


def wait_long(run_id: str, directory: object, *, tracking_uri: str | None) -> list[str]:
    del run_id, directory, tracking_uri
    RELEASED.wait(60)
    return []


@pytest.fixture(autouse=True)
def _in_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mlflow.set_tracking_uri(URI)
    CALLS.clear()
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path / "runlog"))
    yield
    RELEASED.set()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs.training.run_reports"):
        yield caplog


def offer(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    offer_reporters(monkeypatch, {"report": f"{__name__}:{function.__name__}"})


def test_the_package_declares_one_reporter() -> None:
    assert declared_reporters() == {"report": "reports.run_report:write_run_report"}


def test_the_reporter_gets_the_run(monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture) -> None:
    offer(monkeypatch, write_well)
    write_run_report(ENDED, directory="out", tracking_uri="http://127.0.0.1:1")
    assert CALLS == [("run-1", "out", "http://127.0.0.1:1")]
    assert warned.messages == []


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lose_mlflow, "was not written: run run-1: MLflow cannot be reached"),
        (lack_a_library, "No module named 'jinja2'). Run `pip install 'mlflow-ipfs[reports]'`"),
        (write_in_part, "is not complete: the latencies are missing: no such file; more"),
        (fail_with_a_password, "was not written: ConnectionError: no answer from postgresql://"),
    ],
)
def test_a_failure_is_one_warning_with_the_command_for_later(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture, function: Any, problem: str
) -> None:
    offer(monkeypatch, function)
    write_run_report(ENDED, tracking_uri=URI)
    [message] = warned.messages
    assert problem in message
    assert message.endswith(f", run {COMMAND}")
    assert "secret" not in message


def test_without_a_reporter_the_warning_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture
) -> None:
    offer_reporters(monkeypatch, {})
    write_run_report(ENDED)
    [message] = warned.messages
    assert "run `pip install 'mlflow-ipfs[reports]'`" in message
    assert COMMAND in message


def test_of_two_reporters_none_is_used(monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture) -> None:
    offer_reporters(monkeypatch, {"report": f"{__name__}:write_well", "other": "elsewhere:write"})
    write_run_report(ENDED, tracking_uri=URI)
    [message] = warned.messages
    assert "elsewhere:write" in message
    assert "uninstall all but one" in message
    assert CALLS == []


def test_a_reporter_that_cannot_be_imported_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture
) -> None:
    offer_reporters(monkeypatch, {"report": "no_such_module:write"})
    write_run_report(ENDED, tracking_uri=URI)
    assert "No module named 'no_such_module'" in warned.messages[0]


def test_the_wait_is_limited(monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture) -> None:
    RELEASED.clear()
    offer(monkeypatch, wait_long)
    started = time.monotonic()
    write_run_report(ENDED, tracking_uri=URI, wait_seconds=0.2)
    assert time.monotonic() - started < 20
    assert "was not written within 0.2 seconds; it may still appear" in warned.messages[0]


@pytest.mark.parametrize("run_id", ["run-1", None])
def test_no_report_lacks_metrics_that_wait_on_disk(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture, tmp_path: Path, run_id: str | None
) -> None:
    offer(monkeypatch, write_well)
    write_run_report(RunLogReport(run_id, 3, 0, tmp_path), tracking_uri=URI)
    [message] = warned.messages
    assert "MLflow does not have all of its metrics yet" in message
    assert "run `mlflow-ipfs runlog sync`, which prints the id of the run; then, run `mlflow-ipfs report" in message
    assert CALLS == []


def test_no_report_lacks_metrics_of_an_earlier_call_for_the_run(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_RUNLOG", str(tmp_path))
    offer(monkeypatch, write_well)
    target = MemoryTarget(is_away=True)
    fit, other = (open_log(target, tmp_path, run_id=run_id, close_seconds=0.1) for run_id in (None, "other"))
    for log in (fit, other):
        log.log_metrics({"loss": 1.0})
        assert log.close().spool is not None
    write_run_report(ENDED, run_key="another", tracking_uri=URI)
    assert len(CALLS) == 1, "another run waits"
    write_run_report(ENDED, run_key=fit.run_key, tracking_uri=URI)
    assert "MLflow does not have all of its metrics yet" in warned.messages[-1]
    assert len(CALLS) == 1


def test_an_interrupted_training_ends_without_a_report(
    monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture
) -> None:
    offer(monkeypatch, write_well)
    write_run_report(ENDED, tracking_uri=URI, is_interrupted=True)
    [message] = warned.messages
    assert "the training was interrupted" in message
    assert COMMAND in message
    assert CALLS == []


def test_a_run_log_calls_after_close_once_and_with_everything_sent(tmp_path: Path) -> None:
    target = MemoryTarget()
    log = open_log(target, tmp_path)
    seen: list[tuple[RunLogReport, int]] = []
    log.after_close = lambda report: seen.append((report, len(target.points)))
    log.log_metrics({"loss": 1.0, "accuracy": 0.5})
    first = log.close("FINISHED")
    log.close()
    assert seen == [(first, 2)]
