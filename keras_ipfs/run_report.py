"""The callback that writes the report of the run at the end of each call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from keras_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training.run_reports import write_run_report

if TYPE_CHECKING:
    import os


class RunReport(SessionCallback):
    """Logs the HTML report of the run to the run, as ``report/report.html``, when a fit, evaluate or predict has ended.

    It is written after MLflow has all metrics, and replaces that of an earlier call. Keras tells no callback of an exception, so
    that no report is written then. A report that cannot be written is a warning with the command that writes it.

    Args:
        directory: where to write ``report.html`` too; None to log it to the run only.
    """

    async_safe = True

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._directory = directory

    def _leave(self) -> None:
        session = self._session
        if session is not None and session.log is not None:
            session.log.after_close = partial(write_run_report, run_key=session.log.run_key, directory=self._directory)
        super()._leave()
