"""The run log of one run.

The path of a point: the training thread appends it to a queue in memory (microseconds) → the *writer*, a thread, drains
the queue about once a second into the spool on disk → the *sender*, another thread, sends the spool to MLflow, many
points a request. An MLflow that is slow, away or refuses connections blocks the sender alone. What it did not get by the
end stays in the spool, and ``mlflow-ipfs runlog sync`` sends it.

Memory is bounded: a queue that is full is drained by the thread that logs. Disk is bounded: beyond the limit of the spool
points are dropped, counted and reported.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from mlflow_ipfs.errors import MlflowIpfsError
from mlflow_ipfs.training.runlog import shutdown
from mlflow_ipfs.training.runlog.conversion import convert_metrics
from mlflow_ipfs.training.runlog.records import Record, metric_records
from mlflow_ipfs.training.runlog.sender import Sender
from mlflow_ipfs.training.runlog.spool import Spool, SpooledRun
from mlflow_ipfs.training.runlog.target import NotCreatedError, RunGoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.training.runlog.records import Point
    from mlflow_ipfs.training.runlog.target import RunTarget

_logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 20_000  # points in memory, 10 MB; more are drained by the thread that logs
DEFAULT_SPOOL_BYTES: Final = 1 << 30
DEFAULT_CLOSE_SECONDS: Final = 10.0
_WRITE_SECONDS: Final = 1.0
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 60.0
_CLOSING_RETRY_SECONDS: Final = 0.2
_LAST_TRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class RunLogReport:
    """What became of the points of a run log.

    Attributes:
        run_id: MLflow's id of the run; None if the run could not be created yet.
        logged: points that were logged.
        dropped: points that will never be in MLflow: refused by MLflow, not a number, or beyond the limit of the spool.
        spool: the directory with the rest, for ``mlflow-ipfs runlog sync``; None if MLflow has everything else.
    """

    run_id: str | None
    logged: int
    dropped: int
    spool: Path | None


class RunLog:
    """Sends the metrics of one run to MLflow without blocking the caller. Thread-safe.

    Args:
        run: the run; ``run.run_id`` None: the sender creates it, when MLflow can be reached.
        target: MLflow.
        directory: parent directory of the spools.
        spool_bytes: limit of the space on disk.
        close_seconds: how long ``close`` waits for MLflow if the caller does not say. The time for which MLflow has not
            answered before counts, so that only the first of many short calls waits for an MLflow that is away.

    Attributes:
        owns_run: whether this run log creates the run, so that who closes it sets the run's status.
        exit_status: the run's status if the process ends before ``close``; None to leave the run running.
        after_close: called with the report at the end of ``close``; None for nothing.

    Raises:
        OSError: the spool cannot be created.
    """

    def __init__(
        self,
        run: SpooledRun,
        target: RunTarget,
        directory: Path,
        *,
        spool_bytes: int = DEFAULT_SPOOL_BYTES,
        close_seconds: float = DEFAULT_CLOSE_SECONDS,
    ) -> None:
        self._queue: deque[tuple[Mapping[str, Any], int, int]] = deque()
        self._queued = 0
        self._logged = 0
        self._close_seconds = close_seconds
        self.owns_run = run.run_id is None and run.creates_run
        self._spool = Spool.create(directory, run, spool_bytes)
        self._target = target
        self._sender = Sender(self._spool, target)
        self._draining = threading.RLock()  # reentrant: a signal handler may run while its thread holds it
        self._wake = threading.Event()
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Condition()
        self._is_closing = False
        self._is_closed = False
        self._is_gone = False
        self._has_failed = False
        self._warned: set[str] = set()
        self._clock = _Clock()
        self.exit_status: str | None = None
        self.after_close: Callable[[RunLogReport], None] | None = None
        self._report: RunLogReport | None = None
        self._threads = [
            threading.Thread(target=self._write_forever, name="mlflow-ipfs-runlog-writer", daemon=True),
            threading.Thread(target=self._send_forever, name="mlflow-ipfs-runlog-sender", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        shutdown.register(self)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the run is created."""
        return self._spool.run.run_id

    @property
    def id(self) -> str:
        """The id of the run log: the name of its directory."""
        return self._spool.run.id

    @property
    def run_key(self) -> str:
        """Value of the tag ``ipfs.runlog_id`` of a run that the run log creates."""
        return self._spool.run.run_key

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Log values at a step. Takes microseconds, and never raises because of MLflow or the disk.

        Args:
            metrics: values by name. Numbers, and scalar tensors and arrays, which are converted on another thread, so
                that no device is synchronised here. They must not be changed in place afterwards.
            step: the step.
        """
        if self._is_closed:
            return
        self._queue.append(({key: _detached(value) for key, value in metrics.items()}, step, self._clock.now_ms()))
        self._queued += len(metrics)
        if self._queued > MAX_QUEUED:
            self._drain()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters. Values are converted to text, as by MLflow."""
        self._append(Record(params={str(key): str(value) for key, value in params.items()}))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""
        self._append(Record(tags={str(key): str(value) for key, value in tags.items()}))

    def log_artifact(self, artifact_path: str, data: bytes) -> None:
        """Store bytes as a file at a path in the run's artifacts."""
        try:
            name = self._spool.add_file(data)
        except OSError as error:
            self._warn(f"the artifact {artifact_path} of a run log was dropped: {error}")
            return
        if name is None:
            self._warn(f"the artifact {artifact_path} was dropped: the run log has reached its limit on disk")
            return
        self._append(Record(artifact=(artifact_path, name)))

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until MLflow has everything that was logged before the call.

        Args:
            timeout_seconds: the longest wait; None for the ``close_seconds`` of the constructor.

        Returns:
            Whether MLflow has everything. If not, it is on disk.
        """
        self._drain()
        self._news.set()
        deadline = self._deadline() if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._idle:
            while not self._spool.is_sent():
                left = deadline - time.monotonic()
                if left <= 0 or self._is_gone or not self._threads[1].is_alive():
                    return self._spool.is_sent()
                self._idle.wait(min(left, 0.2))
        return True

    def _deadline(self) -> float:
        now, silent_since = time.monotonic(), self._target.silent_since
        if silent_since is None:
            return now + self._close_seconds
        return max(silent_since + self._close_seconds, now + min(_LAST_TRY_SECONDS, self._close_seconds))

    def close(self, status: str | None = None, *, timeout_seconds: float | None = None) -> RunLogReport:
        """Send the rest and end the run log. What MLflow does not have by then stays on disk and is reported.

        Args:
            status: the run's final status, ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``; None to leave the run running.
            timeout_seconds: the longest wait for MLflow; None for the ``close_seconds`` of the constructor.
        """
        if self._report is not None:
            return self._report
        self._drain()
        if status is not None:
            self._append(Record(finish=(status, self._clock.now_ms())))
        self._is_closing = True
        self._hurry.set()
        is_sent = self.flush(timeout_seconds)
        self._is_closed = True
        self._wake.set()
        self._news.set()
        self._threads[0].join(1)
        self._threads[1].join(1 if is_sent else 3 * _CLOSING_RETRY_SECONDS)
        self._report = self._make_report(is_sent=is_sent)
        if not self._threads[1].is_alive():
            self._spool.close(remove=is_sent)  # else the sender closes it when MLflow lets go of it
        shutdown.unregister(self)
        self._tell(self._report)
        if self.after_close is not None:
            self.after_close(self._report)
        return self._report

    def drain(self) -> None:
        """Write everything in memory to the spool, for a process that is about to end."""
        self._drain()

    def _make_report(self, *, is_sent: bool) -> RunLogReport:
        return RunLogReport(self.run_id, self._logged, self._spool.dropped, None if is_sent else self._spool.directory)

    def _tell(self, report: RunLogReport) -> None:
        run = report.run_id or f"with the run log {self.id}"
        if report.spool is not None:
            _logger.warning(
                "MLflow does not have all metrics of the run %s yet. They are in %s; run `mlflow-ipfs runlog sync` when "
                "MLflow can be reached",
                run,
                report.spool,
            )
        if report.dropped:
            _logger.warning("%d of %d points of the run %s were dropped", report.dropped, report.logged, run)

    def _append(self, record: Record) -> None:
        if self._is_closed:
            return
        with self._draining:
            self._drain_queue()
            self._write(record, points=0)
        self._news.set()

    def _drain(self) -> None:
        with self._draining:
            self._drain_queue()

    def _drain_queue(self) -> None:
        """Move the points from memory to the spool. The caller holds the lock, so the order is kept."""
        points: list[Point] = []
        bad: list[str] = []
        while self._queue:
            metrics, step, timestamp = self._queue.popleft()
            convert_metrics(metrics, step, timestamp, points, bad)
        self._queued = 0
        self._logged += len(points) + len(bad)
        for name in dict.fromkeys(bad):
            self._warn(f"a value of the metric {name!r} was dropped: it is not a number or a tensor with one element")
        if bad:
            self._spool.drop(len(bad))
        for record in metric_records(points):
            self._write(record, points=len(record.metrics))

    def _write(self, record: Record, *, points: int) -> None:
        try:
            if self._spool.append(record):
                return
            reason = "it has reached its limit on disk"
        except OSError as error:
            reason = str(error)
        self._spool.drop(points)
        self._warn(f"the run log {self._spool.directory} drops points: {reason}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _logger.warning("%s", message)

    def _write_forever(self) -> None:
        while not self._is_closed:
            self._wake.wait(_WRITE_SECONDS)
            if self._queue:
                self._drain()
                self._news.set()

    def _send_forever(self) -> None:
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            self._news.wait()
            self._news.clear()
            try:
                self._sender.send(lambda: self._is_closed)
                retry_seconds = _FIRST_RETRY_SECONDS
            except RunGoneError as error:
                self._is_gone = True
                self._warn(f"{error}. The metrics stay in {self._spool.directory}")
            except (UnreachableError, MlflowIpfsError, OSError) as error:
                if not self._has_failed and not isinstance(error, NotCreatedError):
                    self._has_failed = True
                    self._warn(f"{error}. Metrics are kept in {self._spool.directory} and sent later")
                if self._is_closing:
                    time.sleep(_CLOSING_RETRY_SECONDS)
                else:
                    self._hurry.wait(retry_seconds)
                retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
                self._news.set()
            with self._idle:
                self._idle.notify_all()
            if self._is_gone or self._is_closed:
                break
        if self._report is not None:  # ``close`` did not wait for this thread
            self._spool.close(remove=self._spool.is_sent())

    def after_fork_in_child(self) -> None:
        """Turn the log of a forked child into a no-op: the threads belong to the parent."""
        self._is_closed = True
        self._report = RunLogReport(self.run_id, 0, 0, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("FAILED" if kind else "FINISHED")


class _Clock:
    """Wall-clock time in ms that never jumps back: its start is read once, and then a monotonic clock counts."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        return (self._offset_ns + time.monotonic_ns()) // 1_000_000


def _detached(value: Any) -> Any:  # noqa: ANN401 - a number, or a scalar of any framework
    """Return the value without its autograd graph, which would keep the batch in memory. Does not synchronise."""
    if type(value) in _PLAIN:
        return value
    detach = getattr(value, "detach", None)
    return detach() if detach is not None else value


_PLAIN: Final = frozenset({float, int})


def describe_run(
    tracking_uri: str,
    *,
    run_id: str | None = None,
    experiment: str = "Default",
    experiment_id: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_key: str | None = None,
    creates_run: bool = True,
) -> SpooledRun:
    """Return the header of a new spool of this process. ``tracking_uri`` must not contain a password."""
    spool_id = uuid.uuid4().hex
    return SpooledRun(
        id=spool_id,
        run_key=run_key or spool_id,
        creates_run=creates_run,
        tracking_uri=tracking_uri,
        run_id=run_id,
        experiment=experiment,
        experiment_id=experiment_id,
        run_name=run_name,
        tags=dict(tags or {}),
        created_at=time.time_ns() // 1_000_000,
        node=socket.gethostname(),
        pid=os.getpid(),
    )
