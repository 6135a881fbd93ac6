"""The wheel: it has every file of the packages and the entry points, and reports work from it alone."""

from __future__ import annotations

import configparser
import os
import pwd
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.not_run import not_run

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[1]
CONFIG: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PACKAGES: list[str] = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

USE_REPORTS = """
import importlib.metadata, pathlib, sys
site = pathlib.Path(sys.argv[1]).resolve()
import reports
from mlflow_ipfs.training import MetricsCollector
assert pathlib.Path(reports.__file__).is_relative_to(site), reports.__file__
collector = MetricsCollector()
collector.record_metric("digits/epoch/0/train_loss", 0.5)
files = reports.export(reports.read_collector(collector), site.parent / "out", ["html", "json", "csv", "txt"])
assert files[0].name == "report.html"
for entry in importlib.metadata.distribution("mlflow-ipfs").entry_points:
    if entry.group.startswith("mlflow_ipfs."):
        assert callable(entry.load()), entry
        print(entry.group, entry.name)
assert callable(reports.load_ipython_extension)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with uv, which `make` installs. Its build backend is in uv's cache, or downloaded."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        not_run(f"no {uv}: the wheel cannot be built")
    directory = tmp_path_factory.mktemp("wheel")
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    env["HOME"] = pwd.getpwuid(os.getuid()).pw_dir  # uv's cache is that of the user
    command = [str(uv), "build", "--quiet", "--wheel", "--out-dir", str(directory), str(PROJECT)]
    for options in (["--offline"], []):
        done = subprocess.run([*command, *options], env=env, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode == 0:
            break
    else:
        not_run(f"the wheel's build backend is not in uv's cache and cannot be downloaded: {done.stderr[-300:]}")
    [file] = directory.glob("*.whl")
    return file


def test_it_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    expected = {
        file.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for file in (PROJECT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {Path(name).suffix for name in found} > {".py", ".js", ".css", ".j2"}, "plotly and the template of the page"


def test_it_has_the_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(archive.read(name).decode())
    found = {group: dict(parser[group]) for group in parser.sections()}
    assert found == CONFIG["project"]["entry-points"] | {"console_scripts": CONFIG["project"]["scripts"]}


def test_reports_work_from_it_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{USE_REPORTS}", str(site)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["mlflow_ipfs.commands report", "mlflow_ipfs.reporters report"]
