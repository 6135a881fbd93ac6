"""The command as a user runs it: a process of its own, with a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from mlflow_ipfs.cli import main

if TYPE_CHECKING:
    from click.testing import Result

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
        return line.split()[-1]


@dataclass(frozen=True)
class CommandLine:
    """``cli("add", path)`` runs `mlflow-ipfs add path` and expects it to exit with ``code``."""

    store: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"MLFLOW_IPFS_STORE": f"local:{self.store}"}

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mlflow_ipfs"]

    def __call__(self, *arguments: str | Path, code: int = 0, stdin: bytes = b"") -> Outcome:
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

    def inside(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        """Run it in this process: quicker, and within reach of monkeypatch."""
        return CliRunner(env=self.environment).invoke(main, [str(argument) for argument in arguments], input=stdin)

    def residue(self) -> list[Path]:
        """Files that are left in the store's working folders."""
        folders = [self.store / name for name in ("tmp", "views", "sessions")]
        return [path for folder in folders if folder.exists() for path in folder.rglob("*")]


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of several chunks, a small one, a hidden one, a symlink and an odd name."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "big.bin").write_bytes(bytes(range(256)) * 10_000)  # 2,560,000 bytes: three chunks
    (root / "sub" / "small.txt").write_text("small\n")
    (root / "sub" / "ünï code.txt").write_text("odd\n")
    (root / ".hidden").write_text("hidden\n")
    (root / "link").symlink_to("sub/small.txt")
    return root
