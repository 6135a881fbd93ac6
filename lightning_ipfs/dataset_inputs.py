"""A callback that logs datasets as inputs of the run, with their CIDs."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.session_callback import SessionCallback

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

_logger = logging.getLogger(__name__)

_RUN_POLL_SECONDS: Final = 0.2


class DatasetInputs(SessionCallback):
    """Uploads files or directories as artifacts of the run and logs them as its inputs, with their CIDs.

    This runs on a thread beside the training. At the end of the training it gets ``wait_seconds`` to complete; a dataset that
    could not be logged by then is named in a warning.

    Args:
        paths: files or directories; see ``mlflow_ipfs.log_dataset``.
        context: what the run uses them for; MLflow shows it.
        wait_seconds: how long the end of the training waits.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], context: str = "training", wait_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self._paths = list(paths)
        self._context = context
        self._wait_seconds = wait_seconds
        self._thread: threading.Thread | None = None
        self._left = list(self._paths)
        self._end = threading.Event()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - classes of either package
        """Start logging the datasets, on rank 0."""
        del pl_module
        if trainer.is_global_zero and self._left and self._session is not None and self._session.log is not None:
            self._thread = threading.Thread(target=self._log_all, name="mlflow-ipfs-datasets", daemon=True)
            self._thread.start()

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(self._wait_seconds)
            self._end.set()
            if self._left:
                _logger.warning("not logged as inputs of the run in time: %s", ", ".join(map(str, self._left)))
        super()._leave(trainer, status)

    def _log_all(self) -> None:
        from mlflow_ipfs import log_dataset  # noqa: PLC0415 - MLflow loads slowly

        run_id = self._find_run()
        for path in list(self._left) if run_id is not None else ():
            try:
                log_dataset(path, context=self._context, run_id=run_id)
            except Exception as error:  # noqa: BLE001 - no failure of lineage may stop a training
                _logger.warning("the dataset %s was not logged: %s", path, error)
                continue
            self._left.remove(path)

    def _find_run(self) -> str | None:
        """Return the id of the run, as soon as the run log has created it."""
        session = self._session
        assert session is not None
        assert session.log is not None
        session.log.set_tags(
            {"ipfs.datasets": str(len(self._paths))}
        )  # the sender creates the run for the first record
        while not self._end.is_set():
            if session.log.run_id is not None:
                return session.log.run_id
            time.sleep(_RUN_POLL_SECONDS)
        return None
