from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

BIG = b"".join(number.to_bytes(4, "big") for number in range(640_000))  # 2,560,000 bytes: three different chunks


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """Return the command, with a store that does not exist yet."""
    return CommandLine(tmp_path / "store")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with a file of several chunks, a small file, a hidden file, a symlink and an unusual name."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "big.bin").write_bytes(BIG)
    (root / "sub" / "small.txt").write_text("small\n")
    (root / "sub" / "ünï code.txt").write_text("odd\n")
    (root / ".hidden").write_text("hidden\n")
    (root / "link").symlink_to("sub/small.txt")
    return root


@pytest.fixture
def root(cli: CommandLine, directory: Path) -> str:
    """Return the CID of the directory with its hidden file: 10 blocks."""
    return cli("add", "-q", "--hidden", directory).cid
