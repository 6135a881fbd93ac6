"""The notebook, executed as Jupyter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.frameworks

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"


def read_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run every cell, which fails at the first error. Return the value that each code cell shows, by the cell's id."""
    notebook = read_notebook()
    directory = tmp_path_factory.mktemp("notebook")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(directory)}}).execute()
    shown = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "execute_result":
                shown[cell.id] = output.data["text/plain"]
    return shown


def test_it_shows_cids(cells: dict[str, Any]) -> None:
    assert len(cells) == 5
    assert sum("baf" in text for text in cells.values()) == 4
    assert "(1797, 65)" in cells.values()


def test_it_is_saved_without_output() -> None:
    notebook = read_notebook()
    assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
