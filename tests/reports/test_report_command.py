"""`mlflow-ipfs report`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from support.command_line import CommandLine
from support.recorded_runs import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from support.recorded_runs import RecordedRuns


@pytest.fixture
def uri(database: Path, recorded: RecordedRuns, monkeypatch: pytest.MonkeyPatch) -> str:
    del recorded
    uri = f"ipfs+sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"):
        monkeypatch.setenv(name, "0" if name.endswith("RETRIES") else "false")  # the command sets them for its process
    return uri


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


def test_a_report_on_a_model_in_a_new_process(uri: str, cli: CommandLine, tmp_path: Path) -> None:
    assert uri
    cli.in_a_process("report", "--model", "digits/1", "-o", tmp_path / "page")
    assert [file.name for file in (tmp_path / "page").iterdir()] == ["report.html"]
    assert b"<title>digits, version 1</title>" in (tmp_path / "page" / "report.html").read_bytes()
    outcome = cli.in_a_process("report", "--model", "digits/1", "-o", tmp_path / "out", "--formats", "json,csv,txt")
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert {"report.json", "report.txt", "runs.csv", "metrics.csv"} <= set(files)
    assert len([line for line in outcome.lines if line.startswith("wrote ")]) == len(files)
    assert outcome.lines[-1].startswith("digits, version 1: 1 run, ")
    assert outcome.stderr == ""
    assert json.loads((tmp_path / "out" / "report.json").read_bytes())["versions"][0]["name"] == "digits"


def test_runs_and_experiments_with_one_format_each(
    uri: str, cli: CommandLine, recorded: RecordedRuns, tmp_path: Path
) -> None:
    assert uri
    cli("report", "--run", recorded.full, "--run", recorded.empty, "-o", tmp_path / "a", "--formats", "txt")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["report.txt"]
    text = (tmp_path / "a" / "report.txt").read_text()
    assert "Run full" in text
    assert "Run empty" in text
    cli("report", "--experiment", EXPERIMENT, "--filter", "metrics.once = 7", "-o", tmp_path / "b", "--formats", "json")
    runs = json.loads((tmp_path / "b" / "report.json").read_bytes())["runs"]
    assert [run["run_id"] for run in runs] == [recorded.full]


def test_the_report_is_logged_to_its_run_and_published(
    uri: str, cli: CommandLine, client: MlflowClient, recorded: RecordedRuns, tmp_path: Path
) -> None:
    assert uri
    records = cli(
        *("report", "--run", recorded.full, "-o", tmp_path / "out", "--formats", "html,txt"),
        *("--log-to-run", "--publish", "--json"),
    ).records
    names = ["report.html", "report.txt"]
    assert [record.get("path", "").rpartition("/")[2] for record in records[:2]] == names
    assert records[2] == {"run_id": recorded.full, "artifacts": "report/"}
    assert [file.path for file in client.list_artifacts(recorded.full, "report")] == [
        f"report/{name}" for name in names
    ]
    cid = records[3]["cid"]
    for name in names:
        written = (tmp_path / "out" / name).read_bytes()
        downloaded = mlflow.artifacts.download_artifacts(run_id=recorded.full, artifact_path=f"report/{name}")
        assert Path(downloaded).read_bytes() == written
        assert cli("cat", f"{cid}/{name}").stdout == written
    assert [line.partition("  ")[0] for line in cli("pin", "ls").lines if cid in line]


def test_panels_stay_in_their_directory(
    uri: str, cli: CommandLine, client: MlflowClient, recorded: RecordedRuns, tmp_path: Path
) -> None:
    assert uri
    out = tmp_path / "out"
    records = cli(
        *("report", "--run", recorded.full, "-o", out, "--formats", "svg", "--log-to-run", "--publish", "--json")
    ).records
    panels = sorted(file.name for file in (out / "panels").iterdir())
    logged = client.list_artifacts(recorded.full, "report/panels")
    assert [file.path for file in logged] == [f"report/panels/{name}" for name in panels]
    assert records[-1]["cid"] == cli("add", out).cid


def test_only_a_report_of_one_run_can_be_logged(uri: str, cli: CommandLine, tmp_path: Path) -> None:
    assert uri
    outcome = cli("report", "--experiment", EXPERIMENT, "-o", tmp_path / "out", "--log-to-run", code=2)
    assert "the report has 2 runs" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_partial_report_is_written_and_says_what_is_missing(
    uri: str, cli: CommandLine, recorded: RecordedRuns, tmp_path: Path
) -> None:
    assert uri
    outcome = cli(
        "report", "--run", recorded.full, "--run", "0" * 32, "-o", tmp_path / "out", "--formats", "html,txt", code=1
    )
    assert f"missing: the run {'0' * 32}: MLflow does not have it" in outcome.stderr
    assert "PARTIAL REPORT" in (tmp_path / "out" / "report.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--run", "0" * 32], 3, "has no run"),
        (["--model", "none"], 3, "no registered model none"),
        (["--experiment", "none"], 3, "no experiment"),
        ([], 2, "nothing to report on"),
        (["--run", "a", "--model", "b"], 2, "either runs, an experiment or a model"),
        (["--experiment", EXPERIMENT, "--formats", "exe"], 2, "the formats are"),
        (["--experiment", EXPERIMENT, "-o", "reports"], 2, "use another name"),
        (["--experiment", EXPERIMENT, "--filter", "nonsense"], 2, "nonsense"),
        (["--experiment", "e", "--tracking-uri", "sqlite:///none.db"], 3, "does not exist"),
        (["--experiment", "e", "--tracking-uri", "http://127.0.0.1:9"], 1, "cannot be reached"),
    ],
)
def test_errors(uri: str, cli: CommandLine, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    assert uri
    outcome = cli("report", *arguments, code=code)
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert list(tmp_path.glob("mlflow-report")) == []


def test_a_missing_library_is_named_with_the_extra(uri: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uri
    for name in [name for name in sys.modules if name.startswith("reports.") and name != "reports.command"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    outcome = cli("report", "--experiment", EXPERIMENT, code=1)
    assert "pip install 'mlflow-ipfs[reports]'" in outcome.stderr


def test_the_module_of_the_command_is_imported_without_mlflow_and_numpy() -> None:
    code = "import sys, reports.command; print({'mlflow', 'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "set()"
