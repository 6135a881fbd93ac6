"""Run the tests that touch MLflow with the lowest and the newest MLflow that ``pyproject.toml`` allows.

::

    python tools/mlflow_matrix.py                 # both
    python tools/mlflow_matrix.py 3.16            # another one

Each version gets an environment in ``.cache/mlflow-<version>``, without PyTorch. A release of MLflow above the upper bound is
supported when this has passed with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
UV = PROJECT / ".venv" / "bin" / "uv"
TESTS = (
    "tests/test_entry_points.py",
    "tests/mlflow_ipfs/binding",
    "tests/mlflow_ipfs/plugins",
    "tests/mlflow_ipfs/servers/test_l0_server.py",
    "tests/mlflow_ipfs/servers/test_l1_server.py",
    "tests/mlflow_ipfs/servers/test_l2_server.py",
    "tests/reports/test_collecting.py",
    "tests/reports/test_collecting_from_servers.py",
)


def bounds() -> tuple[str, str]:
    """Return the lowest minor version of MLflow that the project allows, and the first one that it does not allow."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    [requirement] = [line for line in project["dependencies"] if re.match(r"mlflow\b", line)]
    found = re.fullmatch(r"mlflow>=([\d.]+),<([\d.]+)", requirement)
    if found is None:
        sys.exit(f"{requirement!r} does not have the form mlflow>=LOWEST,<FIRST-NOT-ALLOWED")
    return found[1], found[2]


def make_environment(requirement: str, name: str) -> Path:
    """Return the interpreter of an environment with this project and a version of MLflow."""
    directory = PROJECT / ".cache" / f"mlflow-{name}"
    python = directory / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, directory], check=True)
    install: list[str | Path] = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--editable",
        PROJECT,
        "--group",
        "test",
    ]
    subprocess.run([*install, requirement, "scikit-learn"], check=True, cwd=PROJECT)
    return python


def run(requirement: str, name: str) -> bool:
    """Run the tests with a version of MLflow. Return whether they passed."""
    python = make_environment(requirement, name)
    version = (
        "import importlib.metadata as m; print('MLflow', m.version('mlflow'), 'SQLAlchemy', m.version('sqlalchemy'))"
    )
    subprocess.run([python, "-c", version], check=True)
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not kubo and not frameworks and not soak",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*command, *TESTS], cwd=PROJECT, env=environment, check=False).returncode == 0


def main(named: list[str]) -> None:
    """Run the matrix, and exit with 1 if a version failed."""
    lowest, above = bounds()
    versions = [(f"mlflow=={name}.*", name) for name in named or [lowest]]
    if not named:
        versions.append((f"mlflow<{above}", "newest"))
    failed = [name for requirement, name in versions if not run(requirement, name)]
    if failed:
        sys.exit(f"failed with MLflow {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
