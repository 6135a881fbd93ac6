"""What the callbacks call at the end of a training: the report of a run is logged to the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import mlflow
import pytest

from mlflow_ipfs.errors import NotFoundError
from reports.run_report import write_run_report

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

    from support.recorded_runs import RecordedRuns


def logged_page(run_id: str) -> str:
    with open(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report/report.html"), encoding="utf-8") as file:
        return file.read()


def test_it_is_logged_to_its_run_and_written_to_the_directory(
    client: MlflowClient, recorded: RecordedRuns, database: Path, tmp_path: Path
) -> None:
    assert write_run_report(recorded.full, tmp_path / "out", tracking_uri=f"ipfs+sqlite:///{database}") == []
    assert [file.path for file in client.list_artifacts(recorded.full, "report")] == ["report/report.html"]
    page = logged_page(recorded.full)
    assert "<title>run full</title>" in page
    assert page == (tmp_path / "out" / "report.html").read_text()


def test_a_later_report_replaces_the_former_one(client: MlflowClient, recorded: RecordedRuns) -> None:
    assert write_run_report(recorded.full) == []
    assert "late_loss" not in logged_page(recorded.full)
    client.log_metric(recorded.full, "late_loss", 0.25)
    assert write_run_report(recorded.full) == []
    assert re.search(r"late_loss", logged_page(recorded.full))


def test_a_directory_that_cannot_be_used_is_a_problem_and_the_run_has_the_report(
    client: MlflowClient, recorded: RecordedRuns
) -> None:
    [problem] = write_run_report(recorded.full, "reports")
    assert problem.startswith("it was logged to the run, but not written to reports: ")
    assert client.list_artifacts(recorded.full, "report")


def test_what_could_not_be_read_is_a_problem(
    client: MlflowClient, recorded: RecordedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.latencies._MAX_BYTES", 1)
    [problem] = write_run_report(recorded.full)
    assert problem.startswith("the latency histogram inference/test/latency.json is missing: ")
    assert client.list_artifacts(recorded.full, "report")


def test_a_run_that_mlflow_does_not_have_is_an_error(client: MlflowClient) -> None:
    assert client.search_experiments()
    with pytest.raises(NotFoundError, match="has no run"):
        write_run_report("0" * 32)
