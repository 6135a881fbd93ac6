"""The run log that all callbacks of one Trainer share, and the MLflow run that it writes to.

The run is, in this order: the run of an ``IPFSLogger`` of the Trainer; that of a stock ``MLFlowLogger``; the active run of
``mlflow``; the run of the Trainer's last fit, test or other stage; else a new run, which is created as soon as MLflow can be
reached. With several processes, rank 0 decides and tells the others. Only rank 0 logs metrics of the training, and one
process of each node logs its resources.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from mlflow_ipfs.training.hooks import GIVEN_TWICE
from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.training.runlog.run_log import RunLog

_logger = logging.getLogger(__name__)

STOCK_LOGGER: Final = "MLFlowLogger"
AUTOLOG_CALLBACK: Final = "__MlflowPLCallback"  # the class that mlflow.pytorch.autolog adds to the Trainer
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
        run_key: id under which all ranks and stages find the new run.
        tracking_uri: MLflow; None for the one that is set in this process.
        experiment: name of the experiment of a new run; None for the one that is set in this process.
        logged_by: what else logs the metrics of the module in this stage; None if only the callbacks do.
        owns_run: whether this package created the run, and so sets its status.
    """

    run_id: str | None = None
    run_key: str | None = None
    tracking_uri: str | None = None
    experiment: str | None = None
    logged_by: Literal["logger", "autolog"] | None = None
    owns_run: bool = False


class Session:
    """The shared run log of one Trainer, counted by its users.

    Attributes:
        plan: the run.
        log: the run log; None in processes that log nothing.
        is_global_zero: whether this is the process that logs the training.
    """

    def __init__(self, plan: RunPlan, log: RunLog | None, *, is_global_zero: bool, owns_log: bool = True) -> None:
        self.plan = plan
        self.log = log
        self.is_global_zero = is_global_zero
        self._owns_log = owns_log
        self._users: dict[int, type] = {}

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log values of the training or inference, on rank 0."""
        if self.log is not None and self.is_global_zero and metrics:
            self.log.log_metrics(metrics, step)

    def enter(self, user: object) -> None:
        """Count a user."""
        self._users[id(user)] = type(user)

    def has_kind_of(self, user: object) -> bool:
        """Return whether another user of the same class is in the session."""
        return any(key != id(user) and kind is type(user) for key, kind in self._users.items())

    def leave(self, trainer: Any, user: object, status: str) -> None:  # noqa: ANN401 - a Trainer of either package
        """Close the run log after its last user has left."""
        self._users.pop(id(user), None)
        if self._users:
            return
        _sessions.pop(trainer, None)
        if self.log is None or not self._owns_log:
            return
        report = self.log.close(status if self.plan.owns_run and self.is_global_zero else None)
        _last_plans[trainer] = replace(self.plan, run_id=report.run_id)


_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_last_plans: weakref.WeakKeyDictionary[Any, RunPlan] = weakref.WeakKeyDictionary()  # so that fit and test share a run


def enter_session(
    trainer: Any,  # noqa: ANN401 - a Trainer of either package
    user: object,
    *,
    inherited_run_id: str | None = None,
    is_only_one: bool = True,
) -> Session | None:
    """Return the Trainer's session, opened at the first call. Every rank must call this in the same hook.

    Args:
        trainer: the Trainer.
        user: the callback.
        inherited_run_id: the active run of the process that started this one.
        is_only_one: whether two callbacks of this class would log the same points twice.

    Returns:
        The session; None, with a warning, for a second callback of a class that may be there only once.
    """
    session = _sessions.get(trainer)
    if session is None:
        session = _sessions[trainer] = _open(trainer, inherited_run_id)
    if is_only_one and session.has_kind_of(user):
        if session.is_global_zero:
            _logger.warning("%s", GIVEN_TWICE.format(name=type(user).__name__))
        return None
    session.enter(user)
    return session


def _open(trainer: Any, inherited_run_id: str | None) -> Session:  # noqa: ANN401 - a Trainer of either package
    own = next((logger for logger in trainer.loggers if hasattr(logger, "run_log")), None)
    plan = _decide(trainer, own, inherited_run_id) if trainer.is_global_zero else None
    if trainer.world_size > 1:
        plan = trainer.strategy.broadcast(plan)
    assert plan is not None, "rank 0 has sent it"
    is_global_zero = bool(trainer.is_global_zero)
    if own is not None and is_global_zero:
        return Session(plan, own.run_log, is_global_zero=True, owns_log=False)
    if trainer.local_rank != 0:
        return Session(plan, None, is_global_zero=is_global_zero)
    try:
        log = open_run_log(
            plan.run_id,
            tracking_uri=plan.tracking_uri,
            experiment=plan.experiment,
            run_key=plan.run_key,
            creates_run=is_global_zero,
        )
    except OSError as error:
        _logger.warning("no metrics are logged: the run log cannot be created (%s)", error)
        return Session(plan, None, is_global_zero=is_global_zero)
    return Session(plan, log, is_global_zero=is_global_zero)


def _decide(trainer: Any, own: Any, inherited_run_id: str | None) -> RunPlan:  # noqa: ANN401 - a Trainer and a logger of either package
    if own is not None:
        log = own.run_log
        return RunPlan(log.run_id, log.run_key, own.tracking_uri, own.experiment_name, logged_by="logger")
    stock = next((logger for logger in trainer.loggers if type(logger).__name__ == STOCK_LOGGER), None)
    if stock is not None:
        _logger.warning("%s", COST)
        return RunPlan(stock.run_id, None, stock._tracking_uri, logged_by="logger")  # noqa: SLF001 - Lightning has no other
    run_id = active_run_id() or inherited_run_id
    if run_id is not None:
        plan = RunPlan(run_id)
    else:
        plan = _last_plans.get(trainer) or RunPlan(run_key=new_run_key(), owns_run=True)
    return replace(plan, logged_by="autolog" if _autologs(trainer) else None)


def active_run_id() -> str | None:
    """Return the id of the active run of this thread; None without one."""
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    run = mlflow.active_run()
    return str(run.info.run_id) if run else None


def _autologs(trainer: Any) -> bool:  # noqa: ANN401
    """Return whether MLflow's autolog logs what the module logs in this stage: it leaves out ``trainer.validate``."""
    return trainer.state.fn != "validate" and any(
        type(callback).__name__ == AUTOLOG_CALLBACK for callback in trainer.callbacks
    )


def new_run_key() -> str:
    """Return a new value of the tag ``ipfs.runlog_id``."""
    import uuid  # noqa: PLC0415

    return uuid.uuid4().hex
