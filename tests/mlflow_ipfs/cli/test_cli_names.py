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

    def test_a_directory_that_is_not_a_store_is_3(
        self, cli: CommandLine, root: str, command: tuple[str, ...], directory: Path
    ) -> None:
        assert f"no store found at {directory}" in cli("--store", directory, *command, root, code=3).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Qmfoo", "'Qmfoo' is not a CID: a CID that starts with 'Qm' usually has 46 characters, and this text has 5"),
        ("bafy", "'bafy' is not a CID: a CID that starts with 'bafy' usually has 59 characters, and this text has 4"),
        ("mydir", "'mydir' is not a CID: a CID is a long text such as bafybei… or Qm…"),
        (f"https://ipfs.io/ipfs/{UNKNOWN}/a", f"write {UNKNOWN}/a, without the gateway"),
    ],
)
def test_a_beginner_understands_what_is_wrong_with_a_name(cli: CommandLine, text: str, message: str) -> None:
    assert message in cli("cat", text, code=2).stderr


@pytest.mark.parametrize("path", ["./d", "d", "link"])
def test_a_path_on_disk_is_recognized(cli: CommandLine, tmp_path: Path, path: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    assert f"mlflow-ipfs add {tmp_path}/d" in cli("cat", tmp_path / "d", code=2).stderr
    stderr = cli("cat", path, code=2).stderr
    assert f"{path!r} is a path on this machine, and this command takes the name of content, such as a CID" in stderr
    assert f"`mlflow-ipfs add {path}` stores the path and prints its CID" in stderr


def test_percent_escapes_are_decoded_unless_the_name_has_them(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "with space").write_text("space")
    (tmp_path / "d" / "literal%20name").write_text("literal")
    (tmp_path / "d" / "literal name").write_text("other")
    root = cli("add", "-q", "d").cid
    assert cli("cat", f"{root}/with%20space").stdout == b"space"
    assert cli("cat", f"ipfs://{root}/with%20space").stdout == b"space"
    assert cli("cat", f"{root}/literal%20name").stdout == b"literal"
    assert "no entry 'with%20nothing'" in cli("cat", f"{root}/with%20nothing", code=3).stderr
    assert "no entry '%2e%2e'" in cli("cat", f"{root}/%2e%2e/etc", code=3).stderr


def test_a_missing_store_in_a_backup_is_named(cli: CommandLine, root: str, tmp_path: Path) -> None:
    cli("backup", tmp_path / "backup", "--store-only")
    stderr = cli("--store", tmp_path / "backup", "ls", root, code=3).stderr
    assert f"name {tmp_path / 'backup' / 'store'} with --store" in stderr


@pytest.mark.parametrize("command", [("add", "d"), ("car", "import", "x.car")], ids=lambda command: command[0])
def test_a_store_that_is_created_is_named(
    cli: CommandLine, root: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "d").mkdir()
    cli("car", "export", root, "-o", "x.car")
    mistyped = tmp_path / "stoer"
    assert f"created the store {mistyped}\n" in cli("--store", mistyped, *command).stderr
    assert "created" not in cli("--store", mistyped, *command).stderr
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert "which contains other files" in cli("--store", tmp_path / "other", *command, code=3).stderr
