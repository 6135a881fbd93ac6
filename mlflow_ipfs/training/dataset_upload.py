"""Logging of datasets as inputs of a run, with their CIDs, beside a training."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from mlflow_ipfs.training.runlog.run_log import RunLog

_logger = logging.getLogger(__name__)

_RUN_POLL_SECONDS: Final = 0.2
DATASETS_TAG: Final = "ipfs.datasets"  # of the run: the number of datasets that a training was given


class DatasetUpload:
    """Thread that uploads datasets as artifacts of one run, and logs them as its inputs, as soon as the run exists.

    Args:
        paths: files or directories; see ``mlflow_ipfs.log_dataset``.
        context: what the run uses them for; MLflow shows it.
        log: the run log, which creates the run.
        tracking_uri: MLflow; None for the one that is set in this process.
    """

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
        """Wait for the thread. Name the datasets that are not logged in a warning, and return them."""
        self._thread.join(wait_seconds)
        self._end.set()
        left = list(self._left)
        if left:
            _logger.warning("not logged as inputs of the run: %s", ", ".join(map(str, left)))
        return left

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
