"""Target of a run log: the tracking server or database that the records are sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mlflow_ipfs.errors import InvalidDataError, NotFoundError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow_ipfs.training.runlog.records import Point
    from mlflow_ipfs.training.runlog.spool import SpooledRun


class RefusedError(InvalidDataError):
    """MLflow refused a request for what it contains. The same request can never succeed."""


class RunGoneError(NotFoundError):
    """The run was deleted, or does not exist. Nothing can be sent to it until it is restored."""


class UnreachableError(RemoteError):
    """MLflow did not answer, or answered that it cannot serve now. The same request may succeed later."""


class NotCreatedError(UnreachableError):
    """The run does not exist yet: another process of the job creates it. This is normal at the start of a job."""


class RunTarget(Protocol):
    """Receiver of the records of runs. Every method may block for minutes and may be repeated.

    Every method raises ``RefusedError``, ``RunGoneError`` or ``UnreachableError``.
    """

    @property
    def silent_since(self) -> float | None:
        """Time of ``time.monotonic`` of the first request since the last answer, also of other run logs; None without one."""

    def find_or_create(self, run: SpooledRun) -> str:
        """Return the id of the run with the run key as its tag ``ipfs.runlog_id``. Create the run if there is none.

        Raises ``NotCreatedError`` if there is none, and another process creates it.
        """

    def log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        """Store points. Points that are already stored are not stored again."""

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Store parameters."""

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""

    def log_artifact(self, run_id: str, file: Path, artifact_path: str) -> None:
        """Store a file at a path in the run's artifacts."""

    def finish(self, run_id: str, status: str, end_time: int) -> None:
        """Set the run's final status and the time of its end, in ms since 1970."""
