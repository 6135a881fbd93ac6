"""Tests of how commands that read handle names: valid, malformed and unknown ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path

MALFORMED = "bafynothing"
UNKNOWN = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Return one store for all tests of this module, because they only read."""
    return CommandLine(tmp_path_factory.mktemp("names") / "store")


@pytest.fixture(scope="module")
def root(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("content")
    (directory / "sub").mkdir()
    (directory / "sub" / "small.txt").write_text("small\n")
    return cli("add", "-q", directory).cid


COMMANDS = [("get", "-o", "out"), ("cat",), ("ls",), ("verify",), ("pin", "add"), ("car", "export", "-o", "x.car")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
class TestEveryCommandThatReads:
    def test_unknown_cid_is_3(self, cli: CommandLine, root: str, command: tuple[str, ...]) -> None:
        assert root != UNKNOWN
        result = cli(*command, UNKNOWN, code=3)
        assert UNKNOWN in result.stderr

    def test_unknown_path_is_3(self, cli: CommandLine, root: str, command: tuple[str, ...]) -> None:
        cli(*command, f"{root}/nope", code=3)

    def test_a_path_through_a_file_is_3(self, cli: CommandLine, root: str, command: tuple[str, ...]) -> None:
        cli(*command, f"{root}/sub/small.txt/x", code=3)

    @pytest.mark.parametrize(
        "text", [MALFORMED, "", "s3://bucket/x", "ipfs://localhost:8080/x", "ipns://name", "mfs://"]
    )
    def test_malformed_is_2(self, cli: CommandLine, command: tuple[str, ...], text: str) -> None:
        result = cli(*command, text, code=2)
        assert result.stderr.startswith("mlflow-ipfs: ")

    @pytest.mark.parametrize("path", ["..", "a/../b", "a//b", ".", "a\0b"])
    def test_a_path_that_leaves_its_root_is_2(
        self, cli: CommandLine, root: str, command: tuple[str, ...], path: str
    ) -> None:
        cli(*command, f"{root}/{path}", code=2)

    def test_no_store_is_3_and_none_is_made(
        self, cli: CommandLine, root: str, command: tuple[str, ...], tmp_path: Path
    ) -> None:
        result = cli("--store", tmp_path / "none", *command, root, code=3)
        assert "no store found at" in result.stderr
        assert not (tmp_path / "none").exists()

    def test_a_directory_that_is_not_a_store_is_1(
        self, cli: CommandLine, root: str, command: tuple[str, ...], directory: Path
    ) -> None:
        assert f"no store found at {directory}" in cli("--store", directory, *command, root, code=1).stderr
