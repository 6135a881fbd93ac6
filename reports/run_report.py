"""The report of one run for the callbacks, which find this module by the entry-point group ``mlflow_ipfs.reporters``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import SettingsError

from .collecting import collect
from .delivery import log_to_run
from .exporting import check_directory, export

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

_FORMAT: Final = "html"


def write_run_report(
    run_id: str, directory: str | os.PathLike[str] | None = None, *, tracking_uri: str | None = None
) -> list[str]:
    """Write the HTML report of a run, and log it to the run as ``report/report.html``.

    Args:
        run_id: the run.
        directory: where to write the report too; None to log it to the run only.
        tracking_uri: MLflow; None for the one that is set in this process.

    Returns:
        What is missing in the report, and why it was not written to the directory; empty if all went well.

    Raises:
        NotFoundError: the run does not exist.
        RemoteError: MLflow cannot be reached, or refused the report.
        OSError: the temporary directory cannot be written.
    """
    data = collect(run_ids=[run_id], tracking_uri=tracking_uri)
    problems = [f"{one.what} is missing: {one.reason}" for one in data.missing]
    with tempfile.TemporaryDirectory() as place:
        files = export(data, place, _FORMAT)
        if directory is not None:  # first, because it may be all that the user gets
            try:
                _copy(files, Path(directory))
            except (OSError, SettingsError) as error:
                problems.append(f"it was logged to the run, but not written to {directory}: {error}")
        log_to_run(run_id, files, Path(place), tracking_uri)
    return problems


def _copy(files: Sequence[Path], directory: Path) -> None:
    check_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, directory / file.name)
