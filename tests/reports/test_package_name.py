"""The name ``reports`` is a common one: what guards against another package with this name."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import reports
from support.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

PACKAGE = Path(reports.__file__).parent


def find_absolute_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_its_own_modules_use_relative_imports_only() -> None:
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 10
    found = [(file.name, name) for file in files for name in find_absolute_imports(file)]
    assert [one for one in found if one[1].partition(".")[0] == "reports"] == []


def test_no_other_installed_distribution_has_the_name() -> None:
    assert set(importlib.metadata.packages_distributions().get("reports", [])) <= {"mlflow-ipfs"}


def test_doctor_names_a_distribution_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "site" / "other-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("reports\n")
    monkeypatch.syspath_prepend(str(other.parent))
    records = CommandLine(tmp_path / "store")("doctor", "--json", code=1).records
    (found,) = [record for record in records if record["topic"] == "packages"]
    assert (found["state"], found["packages"]) == ("problem", ["other"])
