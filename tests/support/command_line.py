"""`mlflow-ipfs` with a separate store: in this process, which is fast, or in another, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from mlflow_ipfs.cli import main

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 180  # machines can be busy


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records that ``--json`` printed."""
        return [json.loads(line) for line in self.lines]

    @property
    def cid(self) -> str:
        """Last word of the only line."""
        (line,) = self.lines
        return line.rpartition(" ")[2]


@dataclass(frozen=True)
class CommandLine:
    """Runner of commands: ``cli("add", path)`` runs `mlflow-ipfs add path` in this process and checks the exit code."""

    store: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"MLFLOW_IPFS_STORE": f"local:{self.store}"}

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mlflow_ipfs"]

    def __call__(self, *arguments: str | Path, code: int = 0, stdin: bytes = b"") -> Outcome:
        result = CliRunner(env=self.environment).invoke(main, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        outcome = Outcome(result.exit_code, result.stdout_bytes, result.stderr)
        assert outcome.code == code, outcome
        return outcome

    def in_a_process(self, *arguments: str | Path, code: int = 0, stdin: bytes = b"") -> Outcome:
        """Run a command in a new process, as a user does. This is slower."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode())
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome

    def residue(self) -> list[Path]:
        """Return the files that are left in the working directories of the store."""
        directories = [self.store / name for name in ("tmp", "views", "sessions")]
        return [path for directory in directories if directory.exists() for path in directory.rglob("*")]
