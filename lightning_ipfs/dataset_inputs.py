"""A callback that logs datasets as inputs of the run, with their CIDs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from lightning_ipfs.session_callback import SessionCallback
from mlflow_ipfs.training.dataset_upload import DatasetUpload

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


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

    _is_only_one: ClassVar[bool] = False

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], context: str = "training", wait_seconds: float = 60.0
    ) -> None:
        super().__init__()
        self._context = context
        self._wait_seconds = wait_seconds
        self._upload: DatasetUpload | None = None
        self._left = list(paths)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - classes of either package
        """Start logging the datasets, on rank 0."""
        del trainer, pl_module
        session = self._session
        if self._left and session is not None and session.log is not None and session.is_global_zero:
            self._upload = DatasetUpload(self._left, self._context, session.log, session.plan.tracking_uri)

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        upload, self._upload = self._upload, None
        if upload is not None:
            self._left = upload.finish(self._wait_seconds)  # the next fit tries again
        super()._leave(trainer, status)
