"""Which runs this process logs to in MLflow, seen at the public methods of MLflow's client.

Everything that logs in a process calls them: ``mlflow.log_metric`` and its siblings, autologging, loggers, and the run logs of
the callbacks on their threads. A search by the time of the start would find the runs of other users too, and would miss a run
that was started before.
"""

from __future__ import annotations

import functools
import inspect
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CREATE: Final = "create_run"
_RUN_ID: Final = "run_id"
_IS_OURS: Final = "_mlflow_ipfs_notes_runs"


class LoggedRuns:
    """The ids of runs, by the tracking URI of the client that logged to them; in the order of their first use."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], None] = {}  # one operation of a dict is atomic: threads log too

    def add(self, tracking_uri: str, run_id: str) -> None:
        """Note that a run was created or logged to."""
        self._runs[tracking_uri, run_id] = None

    def by_tracking_uri(self) -> dict[str, list[str]]:
        """Return the ids of the runs of each MLflow."""
        found: dict[str, list[str]] = {}
        for uri, run_id in list(self._runs):
            found.setdefault(uri, []).append(run_id)
        return found


_lock: Final = threading.Lock()
_recorders: Final[list[LoggedRuns]] = []
_originals: Final[dict[str, Any]] = {}


@contextmanager
def record_logged_runs() -> Iterator[LoggedRuns]:
    """Record the runs that this process creates or logs to, on any thread, until the end of the block."""
    runs = LoggedRuns()
    with _lock:
        if not _recorders:
            _observe_client()
        _recorders.append(runs)
    try:
        yield runs
    finally:
        with _lock:
            _recorders.remove(runs)
            if not _recorders:
                _leave_client()


def _observe_client() -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - MLflow loads slowly

    _originals.update({name: method for name, method in vars(MlflowClient).items() if _logs_to_a_run(name, method)})
    for name, method in _originals.items():
        setattr(MlflowClient, name, _noting(method, creates=name == _CREATE))


def _leave_client() -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    for name, method in _originals.items():
        if getattr(
            getattr(MlflowClient, name), _IS_OURS, False
        ):  # else another library has put its own there meanwhile
            setattr(MlflowClient, name, method)
    _originals.clear()


def _logs_to_a_run(name: str, method: object) -> bool:
    """Return whether a method of MLflow's client creates a run, or logs something to the run that its first argument names."""
    if name == _CREATE:
        return True
    if not (name.startswith("log_") or name == "set_tag") or not inspect.isfunction(method):
        return False
    return list(inspect.signature(method).parameters)[1:2] == [_RUN_ID]


def _noting(method: Callable[..., Any], *, creates: bool) -> Callable[..., Any]:
    """Return a method that does the same, and notes the run after each call that succeeded."""

    @functools.wraps(method)
    def call(client: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - any method of the client
        result = method(client, *args, **named)
        run_id = result.info.run_id if creates else named.get(_RUN_ID, args[0] if args else None)
        if isinstance(run_id, str):
            for runs in tuple(_recorders):  # another thread may add one
                runs.add(str(client.tracking_uri), run_id)
        return result

    setattr(call, _IS_OURS, True)
    return call
