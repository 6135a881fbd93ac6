"""Base class of the callbacks: a share of the sessions of a model's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from keras.callbacks import Callback

from keras_ipfs.sessions import Session, enter_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    Logs: TypeAlias = Mapping[str, Any] | None


class SessionCallback(Callback):  # type: ignore[misc] # Keras has no types
    """A callback with a share of the session of each ``fit``, ``evaluate`` and ``predict``.

    A validation in a fit is not a session of its own. A call inside of a fit, from another callback, is.
    """

    _is_only_one: ClassVar[bool] = True  # two of the class would log the same points

    def __init__(self) -> None:
        super().__init__()
        self._sessions: list[Session] = []  # the call in progress is the last one

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the session."""
        del logs
        self._sessions.clear()  # of calls that ended with an exception
        self._enter(is_fit=True)

    def on_train_end(self, logs: Logs = None) -> None:
        """Leave the session."""
        del logs
        self._leave()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Open the session of an ``evaluate`` outside of a fit."""
        del logs
        if not self._is_fitting:
            self._enter()

    def on_test_end(self, logs: Logs = None) -> None:
        """Leave the session of an ``evaluate`` outside of a fit."""
        del logs
        if not self._is_fitting:
            self._leave()

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Open the session."""
        del logs
        self._enter()

    def on_predict_end(self, logs: Logs = None) -> None:
        """Leave the session."""
        del logs
        self._leave()

    @property
    def _session(self) -> Session | None:
        return self._sessions[-1] if self._sessions else None

    @property
    def _is_fitting(self) -> bool:
        """Whether the call in progress is a fit. The session of a fit that raised belongs to another call."""
        session = self._session
        return session is not None and session.is_fit and session.call is self.params

    def _enter(self, *, is_fit: bool = False) -> None:
        session = enter_session(self.model, self, self.params, is_fit=is_fit, is_only_one=self._is_only_one)
        self._sessions.append(session)

    def _leave(self) -> None:
        if self._sessions:
            self._sessions.pop().leave(self)
        if self._session is not None:
            self.params = self._session.call  # a fit goes on

    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        if self._session is not None:
            self._session.log_metrics(metrics, step)
