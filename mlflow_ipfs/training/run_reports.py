"""The report of a run at the end of its training.

The package ``reports`` stands above this one, and writes it. It is found through the entry-point group
``mlflow_ipfs.reporters``: one function, see ``Reporter``. No failure reaches the training: each one is a warning that names the
command that writes the report later.
"""

from __future__ import annotations

import importlib.metadata
import logging
import queue
import shlex
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.config import Settings
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError, SettingsError
from mlflow_ipfs.training.runlog.opening import has_unsent, without_secrets

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from mlflow_ipfs.training.runlog.run_log import RunLogReport

_logger = logging.getLogger(__name__)

GROUP: Final = "mlflow_ipfs.reporters"
WAIT_SECONDS: Final = 60.0
_INSTALL: Final = "pip install 'mlflow-ipfs[reports]'"
_INCOMPLETE: Final = (
    "was not written, because MLflow does not have all of its metrics yet. When MLflow can be reached, run "
    "`mlflow-ipfs runlog sync`, which prints the id of the run; then"
)


class Reporter(Protocol):
    """What an entry point of the group is."""

    def __call__(
        self, run_id: str, directory: str | os.PathLike[str] | None, *, tracking_uri: str | None
    ) -> Sequence[str]:
        """Write the report of a run, log it to the run, and return what is missing in it or was not written, in words."""


def write_run_report(
    ended: RunLogReport,
    *,
    run_key: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    is_interrupted: bool = False,
    wait_seconds: float = WAIT_SECONDS,
) -> None:
    """Write the report of a run after its run log has been closed, and log it to the run. Failures are warnings.

    Args:
        ended: what ``RunLog.close`` returned. Without all metrics in MLflow, no report is written.
        run_key: the key of the run, by which metrics of earlier calls are found that MLflow does not have either.
        directory: where to write the report too; None to log it to the run only.
        tracking_uri: MLflow; None for the one that is set in this process.
        is_interrupted: whether the training was interrupted. Then no report is written, because the process should end.
        wait_seconds: how long the caller waits for the report.
    """
    run_id = ended.run_id
    if run_id is None or ended.spool is not None:
        problem = _INCOMPLETE
    elif is_interrupted:
        problem = "was not written, because the training was interrupted. To write it"
    else:
        wanted = _Wanted(run_id, run_key, directory, tracking_uri)
        problem = _try_for(wait_seconds, wanted)
    if problem:
        run = "a new run" if run_id is None else f"the run {run_id}"
        _logger.warning("the report of %s %s, run `%s`", run, problem, _command(run_id, tracking_uri))
    else:
        _logger.info("the report of the run %s was logged to it: report/", run_id)


def _command(run_id: str | None, tracking_uri: str | None) -> str:
    """Return the command that writes the report."""
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    uri = shlex.quote(without_secrets(tracking_uri or mlflow.get_tracking_uri()))
    return f"mlflow-ipfs report --run {run_id or 'ID'} --log-to-run --tracking-uri {uri}"


class _Wanted(NamedTuple):
    """A report to write."""

    run_id: str
    run_key: str | None
    directory: str | os.PathLike[str] | None
    tracking_uri: str | None


def _try_for(wait_seconds: float, wanted: _Wanted) -> str:
    """Write a report on a thread. Return what went wrong within the time, or ``""``."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def attempt() -> None:
        answers.put(_attempt(wanted))

    try:
        threading.Thread(target=attempt, name="mlflow-ipfs-report", daemon=True).start()
        return answers.get(timeout=wait_seconds)
    except queue.Empty:
        return f"was not written within {wait_seconds:g} seconds; it may still appear. To write it"
    except RuntimeError as error:  # at the end of the process no thread can be started
        return f"was not written: {error}. To write it"


def _attempt(wanted: _Wanted) -> str:
    try:
        if has_unsent(Settings.from_environment().runlog, wanted.run_id, wanted.run_key):
            return _INCOMPLETE
        write = _find_reporter()
        if wanted.tracking_uri is None:
            import mlflow  # noqa: PLC0415

            mlflow.flush_async_logging()  # MLflow's autolog for Keras logs the last epoch on a thread
        problems = write(wanted.run_id, wanted.directory, tracking_uri=wanted.tracking_uri)
    except ImportError as error:
        return (
            f"was not written: it needs a library that is not installed ({error}). Run `{_INSTALL}`; to write it then"
        )
    except MlflowIpfsError as error:
        return f"was not written: {error}. To write it"
    except Exception as error:  # noqa: BLE001 - MLflow and its plugins raise anything, and no failure may stop a training
        return hide_secrets(f"was not written: {type(error).__name__}: {error}. To write it")
    return f"is not complete: {'; '.join(problems)}. To write it again" if problems else ""


def _find_reporter() -> Reporter:
    """Return the function of the only installed package that writes reports.

    Raises:
        NotFoundError: no package does.
        SettingsError: several packages do.
        ImportError: the package needs a library that is not installed.
    """
    entries = {entry.value: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if not entries:
        msg = f"no installed package can write it; run `{_INSTALL}`"
        raise NotFoundError(msg)
    if len(entries) > 1:
        names = sorted(f"{entry.dist.name if entry.dist else '?'} ({value})" for value, entry in entries.items())
        msg = f"several installed packages can write it: {', '.join(names)}; uninstall all but one"
        raise SettingsError(msg)
    [entry] = entries.values()
    return cast(Reporter, entry.load())
