"""Resolution of a model version's source, as the caller names it, to the location of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import cid_of_location, join_path, scheme_of
from mlflow_ipfs.errors import InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities import LoggedModel, Run


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The location of a model's bytes.

    Attributes:
        uri: the location.
        stated: True if the caller wrote the URI; False if MLflow's own records name it.
        run_id: the run that the model comes from, if known.
        run: the run with that id, if it was read already.
        find_other: finds the location to try if the first one has no content; returns None if there is no other.
    """

    uri: str
    stated: bool
    run_id: str | None
    run: Run | None = None
    find_other: Callable[[], str | None] = lambda: None


def resolve_source(
    source: str, run_id: str | None, *, version_location: Callable[[str | None, str | None], str]
) -> ModelSource:
    """Resolve ``models:/`` and ``runs:/`` to the URI of the artifacts.

    Args:
        source: the argument of ``create_model_version``.
        run_id: the argument of ``create_model_version``.
        version_location: returns the ``storage_location`` of another version, by its name and version.

    Raises:
        MlflowException: MLflow does not know the run, model or version, or the model is not ready.
        InvalidPathError: the source is empty, or it names a version by something other than its number.
    """
    scheme = scheme_of(source)
    if scheme == "models":
        name, version, model_id = mlflow_compat.model_name_and_version(source)
        if model_id is None:
            _check_numbered(source, version)
            location = version_location(name, version)
            # The location of a version that is not frozen was written by its client.
            return ModelSource(location, stated=cid_of_location(location) is None, run_id=run_id)
        model = mlflow_compat.get_logged_model(model_id)
        _check_ready(model)
        return ModelSource(model.artifact_location, stated=False, run_id=run_id or model.source_run_id)
    if scheme == "runs":
        return _run_source(source)
    if not source:
        msg = "the model version has no source; give runs:/<run id>/<path>, models:/<model id> or ipfs://<cid>"
        raise InvalidPathError(msg)
    return ModelSource(source, stated=True, run_id=run_id or None)


def _run_source(source: str) -> ModelSource:
    """Resolve ``runs:/<run id>/<path>`` to the run's artifacts, else to the logged model of that name."""
    run_id, _, path = source.partition(":")[2].strip("/").partition("/")
    run = mlflow_compat.get_run(run_id)
    name, _, below = join_path(path).partition("/")

    def find_other() -> str | None:
        model = mlflow_compat.find_logged_model(run, name) if name else None
        if model is None:
            return None
        _check_ready(model)
        return f"{model.artifact_location.rstrip('/')}/{below}".rstrip("/")

    uri = f"{run.info.artifact_uri.rstrip('/')}/{join_path(path)}".rstrip("/")
    return ModelSource(uri, stated=False, run_id=run_id, run=run, find_other=find_other)


def _check_numbered(source: str, version: str | None) -> None:
    if version is None:
        msg = f"{source!r} does not have a version number, so its meaning may change; write models:/<name>/<number>"
        raise InvalidPathError(msg)


def _check_ready(model: LoggedModel) -> None:
    if str(model.status) != "READY":
        msg = (
            f"logged model {model.model_id} cannot be frozen: its status is {model.status}, so its files may still "
            "change. Call mlflow.finalize_logged_model first"
        )
        raise MlflowException(msg, error_code=INVALID_STATE)
