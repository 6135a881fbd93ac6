"""Targets of run logs for tests: MLflow in memory, which can be away, slow, strict or forgetful."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_ipfs.training.runlog.run_log import RunLog, describe_run
from mlflow_ipfs.training.runlog.target import RefusedError, RunGoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow_ipfs.training.runlog.records import Point
    from mlflow_ipfs.training.runlog.spool import SpooledRun


@dataclass
class MemoryTarget:
    """MLflow in memory. Like MLflow, it stores a point only once.

    Attributes:
        is_away: every call raises ``UnreachableError``.
        is_gone: every call for a run raises ``RunGoneError``.
        gate: if it is cleared, calls block until it is set.
        refused_keys: a request with one of these names is refused as a whole.
        lose_answers: the next so many requests are stored, and their answers are lost.
        silent_since: as in ``RunTarget``.
    """

    is_away: bool = False
    is_gone: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    refused_keys: set[str] = field(default_factory=set)
    lose_answers: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, Point], None] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    finished: list[tuple[str, str, int]] = field(default_factory=list)
    request_sizes: list[int] = field(default_factory=list)

    silent_since: float | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def find_or_create(self, run: SpooledRun) -> str:
        self._answer()
        return self.runs.setdefault(run.run_key, f"run-{len(self.runs) + 1}")

    def log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        self._answer(for_a_run=True)
        self.request_sizes.append(len(points))
        bad = self.refused_keys & {point.key for point in points}
        if bad:
            msg = f"MLflow answered: invalid name {bad}"
            raise RefusedError(msg)
        self.points.update(dict.fromkeys((run_id, point) for point in points))
        if self.lose_answers:
            self.lose_answers -= 1
            msg = "the connection broke after the request"
            raise UnreachableError(msg)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        del run_id
        self._answer(for_a_run=True)
        self.params.update(params)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        del run_id
        self._answer(for_a_run=True)
        self.tags.update(tags)

    def log_artifact(self, run_id: str, file: Path, artifact_path: str) -> None:
        del run_id
        self._answer(for_a_run=True)
        self.artifacts[artifact_path] = file.read_bytes()

    def finish(self, run_id: str, status: str, end_time: int) -> None:
        self._answer(for_a_run=True)
        self.finished.append((run_id, status, end_time))

    def values(self, key: str) -> list[tuple[int, float]]:
        """Return steps and values of a metric, in the order of arrival."""
        return [(point.step, point.value) for _, point in self.points if point.key == key]

    def _answer(self, *, for_a_run: bool = False) -> None:
        self.gate.wait(30)
        if self.is_away:
            msg = "MLflow could not be reached: connection refused"
            raise UnreachableError(msg)
        if self.is_gone and for_a_run:
            msg = "MLflow answered: the run was deleted"
            raise RunGoneError(msg)


def open_log(target: MemoryTarget, directory: Path, *, run_id: str | None = "r", **options: float) -> RunLog:
    """Open a run log on a target in memory."""
    return RunLog(describe_run("memory:", run_id=run_id), target, directory, **options)  # type: ignore[arg-type]
