"""Where a written report goes: into its run in MLflow, and into the content store."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.mlflow_names import shown_uri, translated_errors
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.store import ContentStore

    from .data import ReportData

ARTIFACT_DIRECTORY: Final = "report"


def find_only_run(data: ReportData) -> str:
    """Return the id of the run that a report is about.

    Raises:
        SettingsError: the report has no run, or several runs.
    """
    if len(data.runs) != 1:
        msg = f"the report has {len(data.runs)} runs, and only a report of one run can be logged to it; name the run"
        raise SettingsError(msg)
    return data.runs[0].run_id


def log_to_run(run_id: str, files: Sequence[Path], directory: Path, tracking_uri: str | None) -> None:
    """Log the files of a report as artifacts of a run, in the directory ``report``.

    Args:
        run_id: the run.
        files: the files.
        directory: the directory of the report, so that ``panels/`` stays a directory.
        tracking_uri: MLflow; None for the one that is set in this process.

    Raises:
        NotFoundError: the run does not exist.
        RemoteError: MLflow cannot be reached, or refused a file.
    """
    from mlflow import MlflowClient  # noqa: PLC0415 - MLflow loads slowly

    uri, registry_uri, _ = mlflow_compat.client_uris(tracking_uri)
    with translated_errors(f"run {run_id}", shown_uri(uri)):
        client = MlflowClient(uri, registry_uri)
        for file in files:
            below = file.parent.relative_to(directory).as_posix()
            client.log_artifact(run_id, str(file), posixpath.normpath(f"{ARTIFACT_DIRECTORY}/{below}"))


def publish(store: ContentStore, files: Sequence[Path], directory: Path) -> str:
    """Add the files of a report to the store as one directory, as they are below ``directory``, and pin it. Return its CID."""
    with tempfile.TemporaryDirectory() as place:  # the directory may have other files
        report = Path(place, ARTIFACT_DIRECTORY)
        for file in files:
            copy = report / file.relative_to(directory)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return str(store.add(report).cid)
