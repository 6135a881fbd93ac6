"""A Lightning logger that never waits for MLflow."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from lightning_ipfs.frameworks import base_classes
from lightning_ipfs.sessions import new_run_key
from mlflow_ipfs.training.metric_names import EPOCH
from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.training.runlog.run_log import RunLog

_STATUS: Final = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class IPFSLogger(*base_classes("loggers", "Logger")):  # type: ignore[misc] # the bases are known at run time
    """Logs metrics and hyperparameters to an MLflow run through the run log.

    Args:
        experiment_name: name of the experiment for a new run; None for that of ``mlflow.set_experiment``, or MLflow's default.
        run_name: name of a new run.
        tracking_uri: MLflow; None for the one that is set in the process.
        tags: tags of a new run.
        run_id: an existing run to log to, instead of a new one.
        close_seconds: how long the end of the training waits for MLflow. What MLflow does not have by then stays on disk,
            for ``mlflow-ipfs runlog sync``.
    """

    def __init__(
        self,
        experiment_name: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        run_id: str | None = None,
        close_seconds: float = 10.0,
    ) -> None:
        super().__init__()
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name
        self._run_name = run_name
        self._tags = tags
        self._run_id = run_id
        self._run_key = None if run_id else new_run_key()
        self._close_seconds = close_seconds
        self._log: RunLog | None = None
        self._last_epoch: tuple[int, Any] | None = None

    @property
    def run_log(self) -> RunLog:
        """The run log, opened at first use."""
        if self._log is None:
            self._log = open_run_log(
                self._run_id,
                tracking_uri=self.tracking_uri,
                experiment=self.experiment_name,
                run_name=self._run_name,
                tags=self._tags,
                run_key=self._run_key,
                close_seconds=self._close_seconds,
            )
        return self._log

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.experiment_name or "Default"

    @property
    def version(self) -> str:
        """MLflow's id of the run, or the id of the run log until the run is created."""
        return self._run_id or (self._log.run_id if self._log else None) or str(self._run_key)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the run is created."""
        return self._run_id or (self._log.run_id if self._log else None)

    @property
    def experiment(self) -> RunLog:
        """The run log."""
        return self.run_log

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values. Takes microseconds. Processes other than rank 0 log nothing."""
        if _rank() != 0:
            return
        step = step or 0
        epoch = (step, metrics.get(EPOCH))
        if epoch == self._last_epoch:  # Lightning adds it to each of several calls at a step
            metrics = {name: value for name, value in metrics.items() if name != EPOCH}
        self._last_epoch = epoch
        self.run_log.log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as Lightning calls it
        """Log hyperparameters: a mapping, a namespace or a dataclass. Nested ones get names such as ``model/layers``."""
        if _rank() == 0 and (flat := _flatten(params)):
            self.run_log.log_params(flat)

    def finalize(self, status: str) -> None:
        """Send the rest, and end a run that this logger created."""
        if self._log is None or _rank() != 0:
            return
        report = self._log.close(_STATUS.get(status, "FAILED") if self._run_key else None)
        self._run_id = report.run_id or self._run_id
        self._log = None  # a later fit or test goes on with the same run


def _rank() -> int:
    from lightning_utilities.core.rank_zero import rank_zero_only  # noqa: PLC0415 - both packages set its rank

    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _flatten(params: Any, prefix: str = "") -> dict[str, str]:  # noqa: ANN401 - any parameters
    if isinstance(params, Namespace):
        params = vars(params)
    elif is_dataclass(params) and not isinstance(params, type):
        params = asdict(params)
    found: dict[str, str] = {}
    for key, value in dict(params or {}).items():
        name = f"{prefix}{key}"
        if isinstance(value, Namespace | dict) or (is_dataclass(value) and not isinstance(value, type)):
            found |= _flatten(value, f"{name}/")
        else:
            found[name] = str(value)
    return found
