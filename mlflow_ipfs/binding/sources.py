"""From what a caller names as a model version's source to the place where the bytes are."""

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

    from mlflow.entities import LoggedModel


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's bytes are.

    Attributes:
        uris: the places to look at, in order; the first that has anything counts.
        stated: the caller wrote the URI; else MLflow's own records name it.
        run_id: the run that the model comes from, if known.
    """

    uris: tuple[str, ...]
    stated: bool
    run_id: str | None


def resolve_source(
    source: str, run_id: str | None, *, version_location: Callable[[str | None, str | None], str]
) -> ModelSource:
    """Follow ``models:/`` and ``runs:/`` to the URI of the artifacts.

    Args:
        source: as given to ``create_model_version``.
        run_id: likewise.
        version_location: the ``storage_location`` of another version, by its name and version.

    Raises:
        MlflowException: MLflow does not know the run, model or version, or the model is not ready.
    """
    scheme = scheme_of(source)
    if scheme == "models":
        name, version, model_id = mlflow_compat.model_name_and_version(source)
        if model_id is None:
            _check_numbered(source, version)
            location = version_location(name, version)
            # A version that is not frozen has the location that its client wrote.
            return ModelSource((location,), stated=cid_of_location(location) is None, run_id=run_id)
        model = mlflow_compat.get_logged_model(model_id)
        _check_ready(model)
        return ModelSource((model.artifact_location,), stated=False, run_id=run_id or model.source_run_id)
    if scheme == "runs":
        return _run_source(source)
    if not source:
        msg = "a model version needs a source: runs:/<run id>/<path>, models:/<model id> or ipfs://<cid>"
        raise InvalidPathError(msg)
    return ModelSource((source,), stated=True, run_id=run_id or None)


def _run_source(source: str) -> ModelSource:
    """``runs:/<run id>/<path>``: the run's artifacts, or the logged model of that name."""
    run_id, _, path = source.partition(":")[2].strip("/").partition("/")
    run = mlflow_compat.get_run(run_id)
    uris = [f"{run.info.artifact_uri.rstrip('/')}/{join_path(path)}".rstrip("/")]
    name, _, below = join_path(path).partition("/")
    model = mlflow_compat.find_logged_model(run, name) if name else None
    if model is not None:
        _check_ready(model)
        uris.append(f"{model.artifact_location.rstrip('/')}/{below}".rstrip("/"))
    return ModelSource(tuple(uris), stated=False, run_id=run_id)


def _check_numbered(source: str, version: str | None) -> None:
    if version is None:
        msg = f"{source!r} names no version by its number, and what it names may change; write models:/<name>/<number>"
        raise InvalidPathError(msg)


def _check_ready(model: LoggedModel) -> None:
    if str(model.status) != "READY":
        msg = (
            f"logged model {model.model_id} is {model.status}, so its files may still change and can't be frozen; "
            "call mlflow.finalize_logged_model first"
        )
        raise MlflowException(msg, error_code=INVALID_STATE)
