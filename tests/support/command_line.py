"""`mlflow-ipfs` with a store of its own: in this process, which is quick, or in another, as a user runs it."""

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

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.lines]

    @property
    def cid(self) -> str:
        """The last word of the only line."""
        (line,) = self.lines
        return line.rpartition(" ")[2]


@dataclass(frozen=True)
class CommandLine:
    """``cli("add", path)`` runs `mlflow-ipfs add path` in this process and expects it to exit with ``code``."""

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
        """The same as a real command: slower, and nothing between it and the system."""
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
        """Files that are left in the store's working directories."""
        directories = [self.store / name for name in ("tmp", "views", "sessions")]
        return [path for directory in directories if directory.exists() for path in directory.rglob("*")]
