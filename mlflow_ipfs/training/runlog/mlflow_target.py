"""MLflow as the target of a run log."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.mlflow_compat import random_run_name
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.training.runlog.target import NotCreatedError, RefusedError, RunGoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow import MlflowClient

    from mlflow_ipfs.training.runlog.records import Point
    from mlflow_ipfs.training.runlog.spool import SpooledRun

ID_TAG: Final = "ipfs.runlog_id"
_NAME_TAG: Final = "mlflow.runName"
_GONE: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
_REFUSED: Final = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "ENDPOINT_NOT_FOUND"})
_silent_since: Final[dict[str, float]] = {}  # by tracking URI: a training may have many run logs, one after the other
_NO_ANSWER: Final = "failed with exception"  # in MLflow's message for a request without an answer
_NOT_ACTIVE: Final = "must be in the 'active' state"  # MLflow's message for a deleted run, with INVALID_PARAMETER_VALUE


class MlflowTarget:
    """A tracking server or database.

    Args:
        tracking_uri: MLflow's tracking URI, with user and password if it needs them.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._client: MlflowClient | None = None

    @property
    def silent_since(self) -> float | None:
        """See ``RunTarget``."""
        return _silent_since.get(self._tracking_uri)

    def find_or_create(self, run: SpooledRun) -> str:
        """See ``RunTarget``."""
        with self._request():
            client = self._open()
            experiment_id = run.experiment_id or _find_or_create_experiment(client, run.experiment)
            found = client.search_runs([experiment_id], f"tags.`{ID_TAG}` = '{run.run_key}'", max_results=1)
            if found:
                return str(found[0].info.run_id)
            if not run.creates_run:
                msg = f"the run with the tag {ID_TAG} {run.run_key} does not exist yet; another process creates it"
                raise NotCreatedError(msg)
            tags = {**run.tags, ID_TAG: run.run_key}
            name = run.run_name or tags.get(_NAME_TAG) or random_run_name()
            created = client.create_run(experiment_id, run.created_at, tags, name)
            return str(created.info.run_id)

    def log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        """See ``RunTarget``."""
        from mlflow.entities import Metric  # noqa: PLC0415 - MLflow loads slowly

        with self._request():
            self._open().log_batch(
                run_id, [Metric(point.key, point.value, point.timestamp, point.step) for point in points]
            )

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """See ``RunTarget``."""
        from mlflow.entities import Param  # noqa: PLC0415

        with self._request():
            self._open().log_batch(run_id, params=[Param(key, value) for key, value in params.items()])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """See ``RunTarget``."""
        from mlflow.entities import RunTag  # noqa: PLC0415

        with self._request():
            self._open().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_artifact(self, run_id: str, file: Path, artifact_path: str) -> None:
        """See ``RunTarget``."""
        with self._request(), tempfile.TemporaryDirectory() as directory:
            named = Path(directory, posixpath.basename(artifact_path))  # MLflow keeps the file's name
            shutil.copyfile(file, named)
            self._open().log_artifact(run_id, str(named), posixpath.dirname(artifact_path) or None)

    def finish(self, run_id: str, status: str, end_time: int) -> None:
        """See ``RunTarget``."""
        with self._request():
            self._open().set_terminated(run_id, status, end_time)

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Translate errors, and note since when MLflow has not answered. A refusal is an answer, too."""
        _silent_since.setdefault(self._tracking_uri, time.monotonic())
        try:
            with _translated(self._tracking_uri):
                yield
        except (RefusedError, RunGoneError, NotCreatedError):
            _silent_since.pop(self._tracking_uri, None)
            raise
        _silent_since.pop(self._tracking_uri, None)

    def _open(self) -> MlflowClient:
        from mlflow import MlflowClient  # noqa: PLC0415

        if self._client is None:
            self._client = MlflowClient(self._tracking_uri)
        return self._client


def _find_or_create_experiment(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


@contextmanager
def _translated(tracking_uri: str) -> Iterator[None]:
    """Translate MLflow's errors, and those of the libraries below it, into the target's errors."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        yield
    except UnreachableError:
        raise
    except MlflowException as error:
        if _NO_ANSWER in str(error):
            raise UnreachableError(_describe(error, tracking_uri)) from error
        message = f"MLflow answered: {error}"
        if error.error_code in _GONE or _NOT_ACTIVE in str(error):
            raise RunGoneError(message) from error
        if error.error_code in _REFUSED:
            raise RefusedError(message) from error
        raise UnreachableError(message) from error
    except Exception as error:
        msg = f"MLflow could not be reached: {type(error).__name__}: {error}"
        raise UnreachableError(msg) from error


def _describe(error: Exception, tracking_uri: str) -> str:
    """Return why a request got no answer, in a short sentence: MLflow's own message has those of three libraries."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    reason = next((str(cause.strerror) for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
    where = hide_secrets(tracking_uri)
    return f"{where} cannot be reached{f' ({reason})' if reason else ''}; check that MLflow's server is running, and its address"
