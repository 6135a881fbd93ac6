"""``%%mlflow_report`` in a notebook, executed as Jupyter does, and in IPython in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from support.mlflow_sites import database, empty_database

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["database", "empty_database"]

CELLS = {
    "setup": "import mlflow\nfrom mlflow_ipfs.training import open_run_log",
    "load": "%load_ext reports",
    "before": "with mlflow.start_run(run_name='old'):\n    mlflow.log_metric('old_loss', 1.0)",
    "start": "before = mlflow.start_run(run_name='before')",
    "active": "%%mlflow_report --dashboard training --static\nmlflow.log_metric('first_loss', 0.5, step=1)\n6 * 7",
    "end": "mlflow.end_run()",
    "run_log": (
        "%%mlflow_report\nlog = open_run_log(run_name='second')\nlog.log_metrics({'second_loss': 0.25}, 1)\nnumber = 5"
    ),
    "two": (
        "%%mlflow_report --dashboard comparison --static\nassert number == 5\n"
        "for rate in (1, 2):\n    with mlflow.start_run(run_name=f'rate-{rate}'):\n"
        "        mlflow.log_metric('val_loss', rate)\n        mlflow.log_param('rate', rate)"
    ),
    "fails": (
        "%%mlflow_report --static\nwith mlflow.start_run(run_name='failing'):\n    mlflow.log_metric('third_loss', 0.1)\n"
        "    raise RuntimeError('the training fails')"
    ),
    "none": "%%mlflow_report\nprint('nothing')",
    "help": "print(get_ipython().find_cell_magic('mlflow_report').__doc__)",
    "wrong": "%%mlflow_report --dashboard pie\nprint('not run')",
}


@dataclass
class Shown:
    """What a cell shows."""

    texts: list[str] = field(default_factory=list)
    displays: list[dict[str, str]] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)

    def add(self, output: Any) -> None:
        if output.output_type == "stream":
            self.texts.append(output.text)
        elif output.output_type == "display_data":
            self.displays.append(output.data)
        elif output.output_type == "execute_result":
            self.values.append(output.data["text/plain"])
        else:
            self.errors.append(output)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def shown(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Execute the cells, and return what each one shows."""
    directory = tmp_path_factory.mktemp("notebook")
    (directory / "mlflow.db").write_bytes(empty_database.read_bytes())
    notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    for name, source in CELLS.items():
        cell: Any = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
        cell.metadata["name"] = name
        notebook.cells.append(cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{directory}/mlflow.db")
        patch.setenv("MLFLOW_IPFS_RUNLOG", str(directory / "runlog"))
        NotebookClient(
            notebook, timeout=240, allow_errors=True, resources={"metadata": {"path": str(directory)}}
        ).execute()
    found = {}
    for cell in notebook.cells:
        found[cell.metadata["name"]] = Shown()
        for output in cell.outputs:
            found[cell.metadata["name"]].add(output)
    return found


def test_the_cells_without_a_mistake_run(shown: dict[str, Shown]) -> None:
    assert {name: one.errors for name, one in shown.items() if one.errors and name != "fails"} == {}


def test_a_run_that_was_active_before_is_shown_if_the_cell_logs_to_it(shown: dict[str, Shown]) -> None:
    [display] = shown["active"].displays
    assert "first_loss" in display["image/svg+xml"]
    assert "old_loss" not in display["image/svg+xml"]
    assert shown["active"].values == ["42"], "the value of the cell is shown as without the magic"


def test_a_run_that_a_thread_creates_is_shown_with_what_was_just_logged(shown: dict[str, Shown]) -> None:
    [display] = shown["run_log"].displays
    assert display["text/html"].startswith("<iframe srcdoc=")
    assert "second_loss" in display["text/html"]
    assert "first_loss" not in display["text/html"]


def test_several_runs_have_one_dashboard_and_variables_are_those_of_the_notebook(shown: dict[str, Shown]) -> None:
    [display] = shown["two"].displays
    assert "rate-1" in display["image/svg+xml"]
    assert "rate-2" in display["image/svg+xml"]


def test_an_exception_is_shown_once_with_the_dashboard_and_fails_the_cell(shown: dict[str, Shown]) -> None:
    first, last = shown["fails"].errors
    assert (first.ename, first.evalue) == (last.ename, last.evalue) == ("RuntimeError", "the training fails")
    assert any("raise" in line for line in first.traceback)
    assert last.traceback == ["RuntimeError: the training fails (the traceback is above the report)"]
    assert "The cell ended with RuntimeError" in shown["fails"].text
    [display] = shown["fails"].displays
    assert "third_loss" in display["image/svg+xml"]


def test_a_cell_without_a_run_says_so(shown: dict[str, Shown]) -> None:
    assert "the cell logged to no MLflow run" in shown["none"].text
    assert shown["none"].displays == []


def test_a_wrong_option_is_an_error_and_the_cell_does_not_run(shown: dict[str, Shown]) -> None:
    assert "UsageError" in shown["wrong"].text
    assert "invalid choice: 'pie'" in shown["wrong"].text
    assert "not run" not in shown["wrong"].text


def test_its_help_names_the_options(shown: dict[str, Shown]) -> None:
    assert " %%mlflow_report" in shown["help"].text
    assert "[--dashboard {comprehensive,training," in shown["help"].text
    assert "--static" in shown["help"].text


def test_in_a_terminal_the_dashboard_is_text(database: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.ipy"
    script.write_text("\n".join([CELLS["setup"], CELLS["load"], "get_ipython().run_cell_magic("]) + repr_arguments())
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    done = subprocess.run(
        [sys.executable, "-m", "IPython", str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "no data: Recorded inference metrics" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def repr_arguments() -> str:
    return "'mlflow_report', '--dashboard inference', \"mlflow.log_metric('loss', 1.0)\")\n"
