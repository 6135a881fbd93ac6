"""The run log that the callbacks of one call of ``fit``, ``evaluate`` or ``predict`` share, and the MLflow run it writes to.

The run is the active run of ``mlflow``, else the one that an earlier call for the same model created, else a new run, which is
created as soon as MLflow can be reached.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.training.hooks import GIVEN_TWICE
from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_ipfs.training.runlog.run_log import RunLog

_logger = logging.getLogger(__name__)


class Autologged(Enum):
    """The part of Keras' losses and metrics that MLflow's autolog logs itself."""

    NOTHING = "nothing"
    BATCHES = "batches"  # those of the training, every n batches
    EPOCHS = "epochs"  # all, for each epoch


@dataclass
class ModelState:
    """What the calls for one model share.

    Attributes:
        run_id: the run that an earlier call created; None if there is none, or if MLflow could not be reached.
        run_key: the tag by which that run is found; None if no call has created one.
        epoch: the last epoch, the step of evaluations and predictions.
        sessions: the open sessions. Calls that ended with an exception leave theirs open, because Keras tells no callback.
    """

    run_id: str | None = None
    run_key: str | None = None
    epoch: int = 0
    sessions: list[Session] = field(default_factory=list)


@dataclass(eq=False)
class Session:
    """The share of all callbacks of one call in a run log.

    Attributes:
        call: the parameters that Keras gives to all callbacks of the call. Their identity tells the calls apart.
        state: what the calls for the model share.
        log: the run log; None if it could not be opened.
        is_fit: whether the call is a ``fit``.
        active_run_id: the user's active run at the start of the call; None if there was none.
        owns_log: whether the session closes the run log. In a call inside of a fit, the fit does.
        autologged: what MLflow's autolog logs.
        before_close: functions that end what runs on other threads, and may log a last time.
    """

    call: Any
    state: ModelState
    log: RunLog | None
    is_fit: bool
    active_run_id: str | None
    owns_log: bool
    autologged: Autologged
    before_close: list[Callable[[], None]] = field(default_factory=list)
    _users: dict[int, type] = field(default_factory=dict)

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log values."""
        if self.log is not None and metrics:
            self.log.log_metrics(metrics, step)

    def admits(self, call: object, user: object) -> bool:
        """Return whether a callback belongs to the session. One that is already in it has begun another call."""
        return self.call is call and id(user) not in self._users

    def enter(self, user: object) -> None:
        """Count a user."""
        self._users[id(user)] = type(user)

    def has_kind_of(self, user: object) -> bool:
        """Return whether another user of the same class is in the session."""
        return type(user) in self._users.values()

    def without_log(self) -> Session:
        """Return a session of the same call that logs nothing and that the call does not share."""
        return replace(self, log=None, owns_log=False, before_close=[], _users={})

    def leave(self, user: object) -> None:
        """Close the session after its last user has left."""
        self._users.pop(id(user), None)
        if not self._users:
            self.close("FINISHED")

    def close(self, status: str) -> None:
        """Close the run log, and give the run its status unless it is the user's own."""
        if self in self.state.sessions:
            self.state.sessions.remove(self)
        for end in self.before_close:
            end()
        if self.log is None or not self.owns_log:
            return
        report = self.log.close(status if self.active_run_id is None else None)
        if self.active_run_id is None:
            self.state.run_id, self.state.run_key = report.run_id, self.log.run_key

    @property
    def sample_number(self) -> int:
        """Number of the next sample of resources in the run. Several callbacks and models may log to one run."""
        return _sample_numbers.get(self._run, 0)

    @sample_number.setter
    def sample_number(self, number: int) -> None:
        _sample_numbers[self._run] = number

    @property
    def _run(self) -> str | None:
        return self.active_run_id or (None if self.log is None else self.log.run_key)


_states: Final[weakref.WeakKeyDictionary[Any, ModelState]] = weakref.WeakKeyDictionary()
_sample_numbers: Final[dict[str | None, int]] = {}


def enter_session(
    model: Any,  # noqa: ANN401 - a Keras model
    user: object,
    call: object,
    *,
    is_fit: bool,
    is_only_one: bool = True,
) -> Session:
    """Return the session of a call, opened for its first callback.

    A fit closes the sessions that earlier calls have left open. Other calls do not, because they may happen inside a fit.

    Args:
        model: the model.
        user: the callback.
        call: the parameters that Keras gives to all callbacks of the call.
        is_fit: whether the call is a ``fit``.
        is_only_one: whether two callbacks of this class would log the same points twice. The second one gets a session that
            logs nothing, with a warning.
    """
    state = _states.setdefault(model, ModelState())
    session = next((session for session in state.sessions if session.admits(call, user)), None)
    if session is None:
        for abandoned in list(state.sessions) if is_fit else ():
            abandoned.close("FAILED")
        session = _open(state, call, is_fit=is_fit)
        state.sessions.append(session)
    if is_only_one and session.has_kind_of(user):
        _logger.warning("%s", GIVEN_TWICE.format(name=type(user).__name__))
        return session.without_log()
    session.enter(user)
    return session


def _open(state: ModelState, call: object, *, is_fit: bool) -> Session:
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    active = mlflow.active_run()
    active_id = active.info.run_id if active else None
    shared = next((other.log for other in state.sessions if other.log and other.active_run_id == active_id), None)
    return Session(
        call,
        state,
        log=shared or _open_log(active_id, state),
        is_fit=is_fit,
        active_run_id=active_id,
        owns_log=shared is None,
        autologged=_find_autologged() if is_fit else Autologged.NOTHING,
    )


def _open_log(active_id: str | None, state: ModelState) -> RunLog | None:
    try:
        if active_id is not None:
            return open_run_log(active_id)
        log = open_run_log(state.run_id, run_key=state.run_key)
    except OSError as error:
        _logger.warning("no metrics are logged: the run log cannot be created (%s)", error)
        return None
    log.exit_status = "FAILED"  # for a call that ends with an exception and is the last one of the process
    return log


def _find_autologged() -> Autologged:
    """Return what MLflow's autolog logs of the fit that is about to start. It patches ``fit`` only."""
    options = mlflow_compat.autolog_options("keras", "tensorflow")
    if not options:
        return Autologged.NOTHING
    every_epoch = any(option.get("log_every_epoch", True) for option in options)
    return Autologged.EPOCHS if every_epoch else Autologged.BATCHES
