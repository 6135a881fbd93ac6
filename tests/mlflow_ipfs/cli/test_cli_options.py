"""Tests of the options `--json` and `--store`, before and after a command's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.command_line import CommandLine


@pytest.mark.parametrize(
    "words",
    [
        "--json pin ls",
        "pin --json ls",
        "pin ls --json",
        "--json ls {root}",
        "ls --json {root}",
        "--json du",
        "--json gc",
    ],
)
def test_json_may_precede_or_follow_a_command(cli: CommandLine, root: str, words: str) -> None:
    assert all(isinstance(record, dict) for record in cli(*words.format(root=root).split()).records)


@pytest.mark.parametrize("words", ["--json cat nothing", "cat --json nothing", "--json pin add nothing"])
def test_an_error_is_json_then_too(cli: CommandLine, words: str) -> None:
    assert json.loads(cli(*words.split(), code=2).stderr)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    "words", ["--store {0} pin ls", "pin --store {0} ls", "pin ls --store {0}", "pin ls --store={0}"]
)
def test_the_store_may_precede_or_follow_a_command(cli: CommandLine, root: str, tmp_path: Path, words: str) -> None:
    (tmp_path / "one").write_text("one")
    one = cli("--store", tmp_path / "other", "add", "-q", "one").lines[0]
    assert cli(*words.format(tmp_path / "other").split()).lines[0].startswith(f"{one}  confirmed  user")
    assert cli("pin", "ls").lines[0].startswith(f"{root}  confirmed  user")


def test_the_nearest_store_counts(cli: CommandLine, root: str) -> None:
    assert cli("--store", "nowhere", "pin", "ls", "--store", cli.store).lines[0].startswith(f"{root}  confirmed  user")


@pytest.mark.parametrize("value", ["{0}", "local:{0}", "store", "./store", "local:store", "~/store"])
def test_a_store_is_named_by_any_path(
    cli: CommandLine, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_IPFS_STORE", "kubo:http://127.0.0.1:5001")  # not looked at
    monkeypatch.chdir(tmp_path)
    assert cli("--store", value.format(cli.store), "pin", "ls").lines[0].startswith(f"{root}  confirmed  user")


@pytest.mark.parametrize("value", ["s3://bucket/store", "file:///store", "kubo:http://127.0.0.1:5001", "", "local:"])
def test_a_store_that_is_not_a_directory_is_refused_and_nothing_is_created(
    cli: CommandLine, tmp_path: Path, value: str
) -> None:
    Path("file").write_text("file")
    before = set(Path.cwd().rglob("*"))
    error = cli("--store", value, "add", "file", code=2).stderr
    assert error.startswith(f"mlflow-ipfs: --store: {value!r} cannot be used: ")
    assert "local:<directory>" in error
    assert set(Path.cwd().rglob("*")) == before
    assert not list(tmp_path.glob("store"))
