"""A callback that logs datasets as inputs of the run, with their CIDs."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.session_callback import SessionCallback

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from mlflow_ipfs.training.runlog.run_log import RunLog

_logger = logging.getLogger(__name__)

_RUN_POLL_SECONDS: Final = 0.2
DATASETS_TAG: Final = "ipfs.datasets"  # of the run: the number of datasets that a training was given


class DatasetInputs(SessionCallback):
    """Uploads files or directories as artifacts of the run and logs them as its inputs, with their CIDs.

    They go to the run that the other callbacks write to, at the tracking URI of its logger. This runs on a thread beside the
    training. At the end of the training it gets ``wait_seconds`` to complete; a dataset that could not be logged by then is
    named in a warning.

    Args:
        paths: files or directories; see ``mlflow_ipfs.log_dataset``.
        context: what the run uses them for; MLflow shows it.
        wait_seconds: how long the end of the training waits.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], context: str = "training", wait_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self._context = context
        self._wait_seconds = wait_seconds
        self._upload: _Upload | None = None
        self._left = list(paths)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - classes of either package
        """Start logging the datasets, on rank 0."""
        del trainer, pl_module
        session = self._session
        if self._left and session is not None and session.log is not None and session.is_global_zero:
            self._upload = _Upload(self._left, self._context, session.log, session.plan.tracking_uri)

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        upload, self._upload = self._upload, None
        if upload is not None:
            self._left = upload.finish(self._wait_seconds)  # the next fit tries again
            if self._left:
                _logger.warning("not logged as inputs of the run: %s", ", ".join(map(str, self._left)))
        super()._leave(trainer, status)


class _Upload:
    """Thread that logs datasets as inputs of one run, as soon as the run log has created the run."""

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], context: str, log: RunLog, tracking_uri: str | None
    ) -> None:
        self._left = list(paths)
        self._context = context
        self._log = log
        self._tracking_uri = tracking_uri
        self._end = threading.Event()
        log.set_tags({DATASETS_TAG: str(len(paths))})  # the first record makes the run log create the run
        self._thread = threading.Thread(target=self._run, name="mlflow-ipfs-datasets", daemon=True)
        self._thread.start()

    def finish(self, wait_seconds: float) -> list[str | os.PathLike[str]]:
        """Wait for the thread, and return the datasets that are not logged."""
        self._thread.join(wait_seconds)
        self._end.set()
        return list(self._left)

    def _run(self) -> None:
        from mlflow_ipfs import log_dataset  # noqa: PLC0415 - MLflow loads slowly

        while self._log.run_id is None:
            if self._end.wait(_RUN_POLL_SECONDS):
                return
        for path in list(self._left):
            try:
                log_dataset(path, context=self._context, run_id=self._log.run_id, tracking_uri=self._tracking_uri)
            except Exception as error:  # noqa: BLE001 - no failure of lineage may stop a training
                _logger.warning("the dataset %s was not logged: %s", path, error)
                continue
            self._left.remove(path)
