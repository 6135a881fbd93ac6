"""Opening of run logs with the user's settings, and sending of spools that earlier processes left."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.config import Settings
from mlflow_ipfs.errors import MlflowIpfsError, StoreBusyError
from mlflow_ipfs.training.runlog.mlflow_target import MlflowTarget
from mlflow_ipfs.training.runlog.run_log import DEFAULT_CLOSE_SECONDS, RunLog, describe_run
from mlflow_ipfs.training.runlog.sender import Sender
from mlflow_ipfs.training.runlog.spool import Spool, list_spools, read_run
from mlflow_ipfs.training.runlog.target import NotCreatedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from mlflow_ipfs.training.runlog.spool import SpooledRun
    from mlflow_ipfs.training.runlog.target import RunTarget


def open_run_log(
    run_id: str | None = None,
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_key: str | None = None,
    creates_run: bool = True,
    close_seconds: float = DEFAULT_CLOSE_SECONDS,
) -> RunLog:
    """Open a run log for a run. Does not contact MLflow.

    Args:
        run_id: an existing run; None to create one, as soon as MLflow can be reached.
        tracking_uri: MLflow's tracking URI; None for the one that is set in this process.
        experiment: name of the experiment for a new run; None for that of ``mlflow.set_experiment``, else
            ``MLFLOW_EXPERIMENT_NAME`` or ``Default``.
        run_name: name of a new run.
        tags: tags of a new run, beside those that ``mlflow.start_run`` sets: user, source and commit.
        run_key: value of the tag ``ipfs.runlog_id`` of a new run, by which several processes find the same run.
        creates_run: False in a process that waits until another one has created the run.
        close_seconds: how long ``close`` waits for MLflow.

    Raises:
        OSError: the spool cannot be created.
    """
    import mlflow  # noqa: PLC0415 - MLflow loads slowly
    from mlflow.environment_variables import MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME  # noqa: PLC0415

    settings = Settings.from_environment()
    uri = tracking_uri or mlflow.get_tracking_uri()
    run = describe_run(
        without_secrets(uri),
        run_id=run_id,
        experiment=experiment or MLFLOW_EXPERIMENT_NAME.get() or "Default",
        # ``mlflow.set_experiment`` sets the variable. The id is one of the tracking URI of this process.
        experiment_id=None if experiment or tracking_uri else MLFLOW_EXPERIMENT_ID.get(),
        run_name=run_name,
        tags=mlflow_compat.context_tags(tags) if run_id is None else tags,
        run_key=run_key,
        creates_run=creates_run,
    )
    return RunLog(
        run, MlflowTarget(uri), settings.runlog, spool_bytes=settings.runlog_bytes, close_seconds=close_seconds
    )


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """One spool on disk.

    Attributes:
        directory: its directory.
        run: the run that it belongs to.
        points: points that are not known to be in MLflow.
        size_bytes: size of its files.
        is_in_use: whether a process uses it now.
        problem: why it cannot be read or was not sent; None if there is no problem.
    """

    directory: Path
    run: SpooledRun | None
    points: int
    size_bytes: int
    is_in_use: bool
    problem: str | None = None


def list_run_logs(directory: Path) -> Iterator[SpoolStatus]:
    """Yield the state of every spool, oldest first."""
    for path in list_spools(directory):
        size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        try:
            spool = Spool.open(path)
        except StoreBusyError:
            yield SpoolStatus(path, read_run(path), 0, size_bytes, is_in_use=True)
            continue
        except MlflowIpfsError as error:
            yield SpoolStatus(path, None, 0, size_bytes, is_in_use=False, problem=str(error))
            continue
        points = sum(len(record.metrics) for record, _ in spool.unsent())
        spool.close()
        yield SpoolStatus(path, spool.run, points, size_bytes, is_in_use=False)


def has_unsent(directory: Path, run_id: str, run_key: str | None) -> bool:
    """Return whether a spool that no process uses has something for a run, because MLflow was away when it was closed.

    Args:
        directory: parent directory of the spools.
        run_id: the run.
        run_key: its tag ``ipfs.runlog_id``, because a spool may not know the id yet; None if a run log did not create it.
    """
    for path in list_spools(directory):
        with suppress(MlflowIpfsError):  # unreadable, or in use by a process that sends it
            run = read_run(path)
            if run.run_id == run_id or (run_key is not None and run.run_key == run_key):
                spool = Spool.open(path)
                is_sent = spool.is_sent()
                spool.close()
                if not is_sent:
                    return True
    return False


def sync_run_logs(
    directory: Path,
    tracking_uri: str | None,
    ids: Collection[str] = (),
    *,
    may_move: bool = False,
    target: RunTarget | None = None,
) -> Iterator[SpoolStatus]:
    """Send every spool that no process uses, and remove those that are sent completely.

    Args:
        directory: parent directory of the spools.
        tracking_uri: MLflow; None for the one that each spool was written for. Spools of another tracking URI are not sent.
        ids: the spools to send; empty for all.
        may_move: send those of another tracking URI, too, if ``ids`` names them and their run was not created yet: the URI
            may have been mistyped.
        target: receiver to use instead of MLflow.

    Yields:
        The state of each spool after the attempt; ``problem`` says why something was not sent.
    """
    receivers: dict[str, RunTarget] = {}
    unreachable: dict[str, str] = {}
    for before in list_run_logs(directory):
        run = before.run
        if run is None or before.is_in_use or (ids and run.id not in ids):
            if not ids or (run is not None and run.id in ids):
                yield before
            continue
        uri = tracking_uri or run.tracking_uri
        if without_secrets(uri) != run.tracking_uri and not (may_move and ids and _is_movable(run)):
            yield replace(before, problem=_explain_other(run, uri))
            continue
        if uri in unreachable:  # every attempt would wait as long as the first one
            yield replace(before, problem=unreachable[uri])
            continue
        try:
            yield _sync(before, without_secrets(uri), target or receivers.setdefault(uri, MlflowTarget(uri)))
        except UnreachableError as error:
            unreachable[uri] = str(error)
            yield replace(before, problem=unreachable[uri])


def _is_movable(run: SpooledRun) -> bool:
    """Return whether a run can be created in another MLflow: nothing in it is from the one that it was meant for."""
    return run.run_id is None and run.experiment_id is None


def _explain_other(run: SpooledRun, uri: str) -> str:
    if _is_movable(run):
        return (
            f"it was logged for {run.tracking_uri}; to send it to {without_secrets(uri)}, name it: "
            f"`mlflow-ipfs runlog sync {run.id} --tracking-uri URI`"
        )
    return f"it belongs to {run.tracking_uri}; name that with --tracking-uri"


def _sync(before: SpoolStatus, tracking_uri: str, target: RunTarget) -> SpoolStatus:
    problem: str | None = None
    spool = Spool.open(before.directory)
    if spool.run.tracking_uri != tracking_uri:
        spool.set_tracking_uri(tracking_uri)
    sender = Sender(spool, target)
    try:
        sender.send()
    except NotCreatedError as error:
        problem = str(error)
    except UnreachableError:
        spool.close()
        raise
    except (MlflowIpfsError, OSError) as error:
        problem = str(error)
    left = sum(len(record.metrics) for record, _ in spool.unsent())
    spool.close(remove=problem is None and spool.is_sent())
    return SpoolStatus(before.directory, spool.run, left, before.size_bytes, is_in_use=False, problem=problem)


def without_secrets(uri: str) -> str:
    """Return a tracking URI without user, password and query."""
    with suppress(ValueError):
        parts = urlsplit(uri)
        if "@" in parts.netloc or parts.query:
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
    return uri
