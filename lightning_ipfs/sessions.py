"""The run log that all callbacks of one Trainer share, and the MLflow run that it writes to.

The run is, in this order: the run of an ``IPFSLogger`` of the Trainer; that of a stock ``MLFlowLogger``; the active run of
``mlflow``; else a new run, which is created as soon as MLflow can be reached. With several processes, rank 0 decides and
tells the others. Only rank 0 logs metrics of the training, and one process of each node logs its resources.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.training.runlog.run_log import RunLog

_logger = logging.getLogger(__name__)

STOCK_LOGGER: Final = "MLFlowLogger"
AUTOLOG_CALLBACK: Final = "MLflowPLCallback"  # the class that mlflow.pytorch.autolog adds to the Trainer
COST: Final = (
    "the Trainer also has Lightning's MLFlowLogger. Each of its calls waits for MLflow on the training thread, and an "
    "MLflow that cannot be reached stops the training after minutes. lightning_ipfs.IPFSLogger logs the same metrics without "
    "waiting"
)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The run of a Trainer, as rank 0 decided.

    Attributes:
        run_id: an existing run; None for a new one.
        run_key: id under which all ranks find the new run.
        tracking_uri: MLflow; None for the one that is set in this process.
        model_metrics_are_logged: whether something else already logs the metrics that the model logs.
    """

    run_id: str | None
    run_key: str | None
    tracking_uri: str | None
    model_metrics_are_logged: bool


class Session:
    """The shared run log of one Trainer, counted by its users.

    Attributes:
        plan: the run.
        log: the run log; None in processes that log nothing.
    """

    def __init__(self, plan: RunPlan, log: RunLog | None, *, owns_log: bool, owns_run: bool) -> None:
        self.plan = plan
        self.log = log
        self._owns_log = owns_log
        self._owns_run = owns_run
        self._users: set[int] = set()

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log values, in processes that log."""
        if self.log is not None and metrics:
            self.log.log_metrics(metrics, step)

    def enter(self, user: object) -> None:
        """Count a user."""
        self._users.add(id(user))

    def leave(self, trainer: Any, user: object, status: str) -> None:  # noqa: ANN401 - a Trainer of either package
        """Close the run log after its last user has left."""
        self._users.discard(id(user))
        if self._users:
            return
        _sessions.pop(trainer, None)
        if self.log is None or not self._owns_log:
            return
        report = self.log.close(status if self._owns_run else None)
        if self._owns_run and report.run_id is not None:
            _last_runs[trainer] = report.run_id


_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_last_runs: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # so that fit and test share a new run


def enter_session(trainer: Any, user: object) -> Session:  # noqa: ANN401 - a Trainer of either package
    """Return the Trainer's session, opened at the first call. Every rank must call this in the same hook."""
    session = _sessions.get(trainer)
    if session is None:
        session = _sessions[trainer] = _open(trainer)
    session.enter(user)
    return session


def _open(trainer: Any) -> Session:  # noqa: ANN401 - a Trainer of either package
    own = next((logger for logger in trainer.loggers if hasattr(logger, "run_log")), None)
    plan = _decide(trainer, own) if trainer.is_global_zero else None
    if trainer.world_size > 1:
        plan = trainer.strategy.broadcast(plan)
    assert plan is not None, "rank 0 has sent it"
    if own is not None and trainer.is_global_zero:
        return Session(plan, own.run_log, owns_log=False, owns_run=False)
    if not trainer.is_global_zero and trainer.local_rank != 0:
        return Session(plan, None, owns_log=False, owns_run=False)
    log = open_run_log(
        plan.run_id, tracking_uri=plan.tracking_uri, run_key=plan.run_key, creates_run=trainer.is_global_zero
    )
    return Session(plan, log, owns_log=True, owns_run=plan.run_id is None and trainer.is_global_zero)


def _decide(trainer: Any, own: Any) -> RunPlan:  # noqa: ANN401 - a Trainer and a logger of either package
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    if own is not None:
        return RunPlan(own.run_log.run_id, own.run_log.run_key, own.tracking_uri, model_metrics_are_logged=True)
    autologs = any(AUTOLOG_CALLBACK in type(callback).__name__ for callback in trainer.callbacks)
    stock = next((logger for logger in trainer.loggers if type(logger).__name__ == STOCK_LOGGER), None)
    if stock is not None:
        _logger.warning("%s", COST)
        return RunPlan(stock.run_id, None, stock._tracking_uri, model_metrics_are_logged=True)  # noqa: SLF001 - Lightning has no other
    active = mlflow.active_run()
    if active is not None:
        return RunPlan(active.info.run_id, None, None, model_metrics_are_logged=autologs)
    last = _last_runs.get(trainer)
    return RunPlan(last, None if last else new_run_key(), None, model_metrics_are_logged=autologs)


def new_run_key() -> str:
    """Return a new value of the tag ``ipfs.runlog_id``."""
    import uuid  # noqa: PLC0415

    return uuid.uuid4().hex
