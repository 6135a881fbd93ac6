"""Sending of a spool: in order, many points a request, one bad point never costs the others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlflow_ipfs.training.runlog.records import MAX_POINTS, Point
from mlflow_ipfs.training.runlog.target import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow_ipfs.training.runlog.records import Record
    from mlflow_ipfs.training.runlog.spool import Position, Spool
    from mlflow_ipfs.training.runlog.target import RunTarget

_logger = logging.getLogger(__name__)


class Sender:
    """Sends the records of one spool to a target.

    Args:
        spool: the spool.
        target: the receiver.
    """

    def __init__(self, spool: Spool, target: RunTarget) -> None:
        self._spool = spool
        self._target = target
        self._refused_keys: set[str] = set()
        self.sent_points = 0

    def send(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Send everything that is in the spool now.

        Args:
            should_stop: asked before each request; True ends the call.

        Raises:
            RunGoneError: the run was deleted. Its records stay in the spool.
            UnreachableError: MLflow cannot be reached now. The rest stays in the spool.
        """
        run_id = self._run_id()
        points: list[Point] = []
        last: Position | None = None
        for record, position in self._spool.unsent():
            if record.metrics and len(points) + len(record.metrics) <= MAX_POINTS:
                points += record.metrics
                last = position
                continue
            if should_stop():
                return
            self._flush(run_id, points, last)
            points, last = list(record.metrics), position
            if not record.metrics:
                self._send_other(run_id, record)
                self._spool.acknowledge(position)
        if not should_stop():
            self._flush(run_id, points, last)

    def _run_id(self) -> str:
        if self._spool.run.run_id is None:
            self._spool.set_run_id(self._target.find_or_create(self._spool.run))
        assert self._spool.run.run_id is not None
        return self._spool.run.run_id

    def _flush(self, run_id: str, points: Sequence[Point], position: Position | None) -> None:
        if points:
            self._send_points(run_id, points)
        if position is not None:
            self._spool.acknowledge(position)

    def _send_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Send points; if MLflow refuses them, send halves, so that only the bad points are dropped."""
        try:
            self._target.log_metrics(run_id, points)
        except RefusedError as error:
            if len(points) > 1:
                middle = len(points) // 2
                self._send_points(run_id, points[:middle])
                self._send_points(run_id, points[middle:])
                return
            self._spool.drop(1)
            if points[0].key not in self._refused_keys:
                self._refused_keys.add(points[0].key)
                _logger.warning("the metric %r of run %s was dropped: %s", points[0].key, run_id, error)
        else:
            self.sent_points += len(points)

    def _send_other(self, run_id: str, record: Record) -> None:
        try:
            if record.params is not None:
                self._send_each(self._target.log_params, run_id, record.params)
            elif record.tags is not None:
                self._send_each(self._target.set_tags, run_id, record.tags)
            elif record.artifact is not None:
                self._send_artifact(run_id, *record.artifact)
            elif record.finish is not None:
                self._target.finish(run_id, *record.finish)
        except RefusedError as error:
            _logger.warning("a record of run %s was dropped: %s", run_id, error)

    def _send_each(self, send: Callable[[str, dict[str, str]], None], run_id: str, texts: dict[str, str]) -> None:
        """Send texts together; if MLflow refuses them, one by one."""
        for start in range(0, len(texts), 100):  # MLflow's limit of params and tags of one request
            part = dict(list(texts.items())[start : start + 100])
            try:
                send(run_id, part)
            except RefusedError:
                for key, value in part.items():
                    try:
                        send(run_id, {key: value})
                    except RefusedError as error:
                        _logger.warning("%r of run %s was dropped: %s", key, run_id, error)

    def _send_artifact(self, run_id: str, artifact_path: str, name: str) -> None:
        file = self._spool.directory / "files" / name
        if file.exists():  # else a previous attempt sent it and was killed before it was acknowledged
            self._target.log_artifact(run_id, file, artifact_path)
            file.unlink()
