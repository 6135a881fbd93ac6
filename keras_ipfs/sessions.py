"""The run log that all callbacks of one model share, and the MLflow run that it writes to.

The run is the active run of ``mlflow``, else the one that an earlier fit of the same model created, else a new run, which is
created as soon as MLflow can be reached.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.training.runlog.opening import open_run_log

if TYPE_CHECKING:
    from mlflow_ipfs.training.runlog.run_log import RunLog

_AUTOLOG: Final = ("keras", "tensorflow")


class Session:
    """The shared run log of one model.

    Attributes:
        log: the run log.
        model_metrics_are_logged: whether MLflow's autolog already logs losses and metrics.
    """

    def __init__(self, log: RunLog, *, owns_run: bool, model_metrics_are_logged: bool) -> None:
        self.log = log
        self.model_metrics_are_logged = model_metrics_are_logged
        self._owns_run = owns_run
        self._users: set[int] = set()
        if owns_run:
            log.exit_status = "FAILED"  # Keras tells no callback about an exception

    def enter(self, user: object) -> None:
        """Count a user. A user whose last fit ended with an exception is counted once."""
        self._users.add(id(user))

    def leave(self, model: Any, user: object) -> None:  # noqa: ANN401 - a Keras model
        """Close the run log after its last user has left."""
        self._users.discard(id(user))
        if self._users:
            return
        _sessions.pop(model, None)
        report = self.log.close("FINISHED" if self._owns_run else None)
        if self._owns_run and report.run_id is not None:
            _last_runs[model] = report.run_id


_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_last_runs: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def enter_session(model: Any, user: object) -> Session:  # noqa: ANN401 - a Keras model
    """Return the model's session, opened at the first call."""
    session = _sessions.get(model)
    if session is None:
        session = _sessions[model] = _open(model)
    session.enter(user)
    return session


def _open(model: Any) -> Session:  # noqa: ANN401 - a Keras model
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    active = mlflow.active_run()
    run_id = active.info.run_id if active else _last_runs.get(model)
    return Session(open_run_log(run_id), owns_run=active is None, model_metrics_are_logged=bool(active) and _autologs())


def _autologs() -> bool:
    """Return whether ``mlflow.autolog`` logs the metrics of Keras models in this process."""
    from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS, autologging_is_disabled  # noqa: PLC0415

    return any(name in AUTOLOGGING_INTEGRATIONS and not autologging_is_disabled(name) for name in _AUTOLOG)
