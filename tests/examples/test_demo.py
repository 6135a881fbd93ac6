"""The demo that the README opens with, run as a user runs it."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.frameworks

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demo printed, and its directory. The name of the directory is awkward on purpose."""
    directory = tmp_path_factory.mktemp("demo") / "a directory, ünïcode"
    result = subprocess.run(
        [sys.executable, DEMO],
        env=os.environ | {"DEMO_DIRECTORY": str(directory)},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, directory


def test_every_step_is_shown(demo: tuple[str, Path]) -> None:
    printed = demo[0]
    assert re.findall(r"^(\d)\. ", printed, flags=re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert "both give the same outputs, bit for bit" in printed
    assert "version 1 is frozen: it still loads, unchanged" in printed
    assert "FAILED" not in printed


def test_refusal_names_the_damaged_file_and_verify_names_the_block(demo: tuple[str, Path]) -> None:
    refused = demo[0].partition("is refused:")[2].partition("and verify names the block:")
    assert "damaged" in refused[0]
    assert re.search(r"baf[a-z0-9]+\s+in data/model.pth", refused[2])


def test_it_ends_with_the_cids_and_the_command_for_the_ui(demo: tuple[str, Path]) -> None:
    last_page = demo[0].partition("Done in")[2]
    assert re.search(r"dataset\s+ipfs://baf", last_page)
    assert re.search(r"model\s+ipfs://baf", last_page)
    assert " ui --backend-store-uri " in last_page


def test_the_version_names_the_dataset(demo: tuple[str, Path]) -> None:
    found = re.search(r"dataset\s+ipfs://(baf\w+)", demo[0])
    assert found is not None
    with sqlite3.connect(demo[1] / "mlflow.db") as connection:
        tags = dict(connection.execute("SELECT key, value FROM model_version_tags WHERE version = 1").fetchall())
    assert tags["ipfs.dataset_cids"] == found[1]


class _Links(HTMLParser):
    """Everything that a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "data"}]


def test_report_is_one_file_with_the_lineage(demo: tuple[str, Path]) -> None:
    page = (demo[1] / "report/report.html").read_text(encoding="utf-8")
    last_page = demo[0].partition("Done in")[2]
    parser = _Links()
    parser.feed(page)
    assert all(link.startswith(("#", "ipfs://")) for link in parser.found)  # works offline, and inside MLflow's sandbox
    assert {"figure", "table", "script"} <= parser.tags
    assert page.count("<script") == page.count("<script>") + page.count('<script type="application/json"')
    for identifier in re.findall(r"(?:ipfs://\S+|\b[0-9a-f]{32}\b)", last_page.partition("Look at it")[0]):
        assert identifier in page
