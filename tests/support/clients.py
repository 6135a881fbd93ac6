"""MLflow clients in separate processes: with this package, or with stock MLflow only."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.mlflow_server import clean_environment

CLIENT_TIMEOUT_SECONDS = 240


def run_client(
    code: str, *arguments: str, directory: Path, python: Path | None = None, env: dict[str, str] | None = None
) -> Any:
    """Run a script in a new process. Return the value that the script passes to ``answer(value)``.

    Args:
        code: the script; ``sys.argv[1:]`` are the arguments.
        arguments: arguments of the script.
        directory: working directory.
        python: interpreter; the default is the current one, where the package is installed.
        env: settings to add to a clean environment.
    """
    prologue = "import json, sys\ndef answer(value): print('ANSWER', json.dumps(value))\n"
    done = subprocess.run(
        [python or Path(sys.executable), "-c", prologue + textwrap.dedent(code), *arguments],
        env=clean_environment(**(env or {})),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answers = [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return json.loads(answers[-1]) if answers else None


@dataclass(frozen=True)
class Answer:
    """Response of a server."""

    status: int
    body: bytes
    headers: dict[str, str]


def ask(url: str, *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """Send one HTTP request, without retries."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, response.read(), dict(response.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), dict(error.headers))
