"""The callback that writes the report of the run at the end of each stage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training.run_reports import write_run_report

if TYPE_CHECKING:
    import os


class RunReport(SessionCallback):
    """Logs the HTML report of the run to the run, as ``report/report.html``, when a fit, test or other stage has ended.

    Rank 0 writes it after MLflow has all metrics, and replaces that of an earlier stage. It is written after an exception too,
    but not after an interruption (Ctrl-C, SIGTERM). A report that is not written is a warning with the command that writes it.

    Args:
        directory: where to write ``report.html`` too; None to log it to the run only.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._directory = directory

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        session = self._session
        if session is not None and session.log is not None and session.is_global_zero:
            session.log.after_close = partial(
                write_run_report,
                run_key=session.log.run_key,
                directory=self._directory,
                tracking_uri=session.plan.tracking_uri,
                is_interrupted=status == "KILLED",
            )
        super()._leave(trainer, status)
