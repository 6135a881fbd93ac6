"""Base class of the callbacks: a share of the Trainer's session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ipfs.frameworks import base_classes
from lightning_ipfs.sessions import Session, enter_session

if TYPE_CHECKING:
    from collections.abc import Mapping


class SessionCallback(*base_classes("callbacks", "Callback")):  # type: ignore[misc] # the bases are known at run time
    """A callback with a share of the Trainer's session from ``setup`` to ``teardown`` or an exception."""

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - classes of either package
        """Open the session. All ranks do this together."""
        del pl_module, stage
        self._session = enter_session(trainer, self)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Leave the session."""
        del pl_module, stage
        self._leave(trainer, "FINISHED")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Leave the session: Lightning does not call ``teardown`` then."""
        del pl_module
        self._leave(trainer, "KILLED" if isinstance(exception, KeyboardInterrupt) else "FAILED")

    def _leave(self, trainer: Any, status: str) -> None:  # noqa: ANN401
        session, self._session = self._session, None
        if session is not None:
            session.leave(trainer, self, status)

    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        if self._session is not None:
            self._session.log_metrics(metrics, step)
