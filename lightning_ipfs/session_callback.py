"""Base class of the callbacks: a share of the Trainer's session."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final

from lightning_ipfs.frameworks import base_classes
from lightning_ipfs.sessions import Session, active_run_id, enter_session

if TYPE_CHECKING:
    from collections.abc import Mapping


_logger = logging.getLogger(__name__)

IN_USE: Final = (
    "the callback {name} is used by a Trainer that has not ended, and logs nothing more of it: give each Trainer a callback of its "
    "own"
)


class SessionCallback(*base_classes("callbacks", "Callback")):  # type: ignore[misc] # the bases are known at run time
    """A callback with a share of the Trainer's session from ``setup`` to ``teardown`` or an exception.

    It has none, and so logs nothing, in a ``fast_dev_run``, for which Lightning switches loggers off, too.
    """

    _is_only_one: ClassVar[bool] = True  # two of the class would log the same points

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None
        self._trainer: Any = None
        self._parent: tuple[int, str | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which a spawning strategy starts: it does not have the active run."""
        return {**self.__dict__, "_parent": (os.getpid(), active_run_id()), "_trainer": None}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - classes of either package
        """Open the session. All ranks do this together."""
        del pl_module, stage
        if self._session is not None:
            _logger.warning("%s", IN_USE.format(name=type(self).__name__))
            self._leave(self._trainer, "KILLED")
        if trainer.fast_dev_run:
            return
        self._trainer = trainer
        pid, run_id = self._parent or (os.getpid(), None)
        self._session = enter_session(
            trainer,
            self,
            inherited_run_id=run_id if pid != os.getpid() else None,
            is_only_one=self._is_only_one,
        )

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Leave the session."""
        del pl_module, stage
        if trainer is self._trainer:
            self._leave(trainer, "FINISHED")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Leave the session: Lightning does not call ``teardown`` then."""
        del pl_module
        if trainer is not self._trainer:
            return
        is_killed = isinstance(exception, KeyboardInterrupt | SystemExit)  # SIGTERM is a SystemExit in Lightning
        self._leave(trainer, "KILLED" if is_killed else "FAILED")

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        session, self._session = self._session, None
        self._trainer = None
        if session is not None:
            session.leave(trainer, self, status)

    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        if self._session is not None:
            self._session.log_metrics(metrics, step)
