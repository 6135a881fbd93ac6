"""A skipped test looks green; this project names it, and CI refuses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CONFTEST = "from support.not_run import pytest_sessionfinish, pytest_terminal_summary"
ONE_MISSING = """
from support.not_run import not_run

def test_that_runs(): pass
def test_that_cannot(): not_run("the moon is missing; `make moon` gets it")
"""
NONE_MISSING = "def test_that_runs(): pass"


def run_pytest(directory: Path, tests: str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_some.py").write_text(tests)
    kept = {name: value for name, value in os.environ.items() if name != "CI" and "TEST" not in name}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
            "--rootdir",
            directory,
            *options,
            directory,
        ],
        env=kept | settings | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_could_not_run_is_listed_with_its_reason(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ONE_MISSING)
    assert "NOT RUN    1 x the moon is missing; `make moon` gets it" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


@pytest.mark.parametrize("settings", [{"CI": "true"}, {"TESTS_STRICT": "1"}])
def test_where_everything_must_be_in_place_it_fails_the_run(tmp_path: Path, settings: dict[str, str]) -> None:
    assert run_pytest(tmp_path, ONE_MISSING, **settings).returncode == pytest.ExitCode.TESTS_FAILED
    assert run_pytest(tmp_path, NONE_MISSING, **settings).returncode == pytest.ExitCode.OK


def test_several_processes_count_together(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ONE_MISSING, "--numprocesses=2", CI="true")
    assert "NOT RUN    1 x the moon is missing" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
