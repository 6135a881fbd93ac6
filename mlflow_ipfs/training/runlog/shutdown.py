"""The open run logs of this process. At its end, each writes its memory to disk, and sends what it can before a deadline."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from mlflow_ipfs.training.runlog.run_log import RunLog

_open: weakref.WeakSet[RunLog] = weakref.WeakSet()
_previous: Any = None
_is_installed = False


def register(log: RunLog) -> None:
    """Close a run log at the end of the process, also at SIGTERM."""
    _open.add(log)
    _install()


def unregister(log: RunLog) -> None:
    """Forget a run log that is closed."""
    _open.discard(log)


def flush_all(timeout_seconds: float) -> bool:
    """Wait until MLflow has everything of the open run logs of this process. Return whether it has."""
    deadline = time.monotonic() + timeout_seconds
    is_sent = True
    for log in list(_open):
        is_sent &= log.flush(max(0.0, deadline - time.monotonic()))
    return is_sent


def _install() -> None:
    """Handle SIGTERM. Only the main thread may; without the handler, a SIGTERM costs the last second of metrics."""
    global _previous, _is_installed  # noqa: PLW0603 - there is one handler in a process
    if _is_installed or threading.current_thread() is not threading.main_thread():
        return
    with contextlib.suppress(ValueError, OSError):
        _previous = signal.signal(signal.SIGTERM, _on_sigterm)
        _is_installed = True


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Drain or close the run logs, then do what would have happened without this handler."""
    is_chained = signal.getsignal(number) is not _on_sigterm  # a later handler, Lightning's, calls this one
    is_final = _previous in {signal.SIG_DFL, None} and not is_chained
    for log in list(_open):
        with contextlib.suppress(Exception):
            if is_final:
                log.close("KILLED")
            else:
                log.drain()  # the other handler decides whether the process ends
    if callable(_previous):
        _previous(number, frame)
    elif is_final:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _close_all() -> None:
    for log in list(_open):
        with contextlib.suppress(Exception):
            log.close(log.exit_status)


def _after_fork_in_child() -> None:
    for log in list(_open):
        log.after_fork_in_child()
    _open.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
