"""The entry-point group of the reporters, as an installation has it, and what they have written."""

from __future__ import annotations

import importlib.metadata
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_ipfs.training import run_reports
from mlflow_ipfs.training.run_reports import GROUP

if TYPE_CHECKING:
    import pytest
    from mlflow import MlflowClient

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def declared_reporters() -> dict[str, str]:
    """Return the names and values of the group in pyproject.toml."""
    entries: dict[str, str] = tomllib.loads(PROJECT.read_text())["project"]["entry-points"][GROUP]
    return entries


def offer_reporters(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """Make the group have these entry points, and leave all other groups as they are."""
    all_entry_points = importlib.metadata.entry_points
    offered = EntryPoints(EntryPoint(name, value, GROUP) for name, value in values.items())

    def entry_points(**selected: Any) -> Any:
        return offered if selected.get("group") == GROUP else all_entry_points(**selected)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def only_run(client: MlflowClient) -> Any:
    """Return the only run of the default experiment."""
    [run] = client.search_runs(["0"])
    return run


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about reports that were not written."""
    return [record.getMessage() for record in caplog.records if record.name == run_reports.__name__]


def page_of(run: Any) -> str:
    """Return the HTML report that was logged to a run."""
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report/report.html")).read_text()
