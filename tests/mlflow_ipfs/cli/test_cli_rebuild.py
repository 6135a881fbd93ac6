from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.blockstore.local import open_local_storage

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine


def lose_index(cli: CommandLine) -> None:
    for path in cli.store.glob("store.db*"):
        path.unlink()


def rebuild(cli: CommandLine, *, code: int = 0) -> dict[str, Any]:
    [record] = cli("doctor", "--rebuild", "--json", code=code).records
    return record


def test_what_was_lost_is_back(cli: CommandLine, root: str, tmp_path: Path) -> None:
    cli("gc")  # makes a backup
    later = tmp_path / "later.bin"
    later.write_bytes(b"later" * 500_000)
    newer = cli("add", "-q", later).cid
    lose_index(cli)
    message = cli("ls", root, code=1).stderr
    assert f"mlflow-ipfs --store {cli.store} doctor --rebuild" in message
    assert "doctor --rebuild" in cli("doctor", code=1).stdout.decode(), "doctor itself says so, too"
    record = rebuild(cli)
    assert (record["whole"], record["names"]["pin"], record["recovered"]) == (True, 1, [newer])
    owners = {item["cid"]: item["owner"] for item in cli("pin", "ls", "--json").records}
    assert owners == {root: "user", newer: record["recovered_owner"]}
    cli("gc", "--grace", "0")
    assert cli("cat", newer).stdout == later.read_bytes()
    cli("verify", root)
    assert {item["state"] for item in cli("doctor", "--json").records} <= {"ok", "note"}


def test_it_reads_well(cli: CommandLine, root: str) -> None:
    lose_index(cli)
    done = cli("doctor", "--rebuild")
    assert done.stderr == ""
    assert done.lines[0] == f"  store        {cli.store}"
    assert done.lines[1].startswith("  found        10 blocks in ")
    assert "  looked in    backup/store-" in done.lines[2]
    assert "  names        1 pin" in done.lines
    assert done.lines[-1] == "  next         start programs that had the store open anew"
    assert cli("pin", "ls", "--json").records[0]["cid"] == root


def test_what_is_not_whole_is_named_and_the_code_says_so(cli: CommandLine, root: str) -> None:
    big = next(path for path in (cli.store / "files").rglob("*") if path.is_file() and path.stat().st_size > 2_000_000)
    big.chmod(0o644)
    with big.open("r+b") as file:
        file.write(b"damaged")
    (cli.store / "files" / "00").mkdir(exist_ok=True)
    (cli.store / "files" / "00" / "\x1bodd\n").write_text("?")
    done = cli("doctor", "--rebuild", code=1)
    lines = done.lines
    assert f"! incomplete   pin user {root}: something below it is missing or damaged" in lines
    assert any(line.startswith("! damaged      files/") and "1 of its 3 leaves" in line for line in lines)
    assert any(line.startswith("! set aside    quarantine/") and "\\x1bodd\\n" in line for line in lines)
    assert "not everything is whole" in done.stderr
    record = rebuild(cli, code=1)
    assert record["incomplete"] == [{"kind": "pin", "name": "user", "cid": root}]
    assert len(record["damaged"]) == 1
    assert record["old_index"] is not None


@pytest.mark.slow
def test_a_chunker_in_the_settings_helps_to_find_how_a_file_was_cut(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 5000)
    cid = cli("add", "-q", "--chunker", "size-77777", file).cid
    lose_index(cli)
    for path in (cli.store / "backup").iterdir():
        path.unlink()
    assert len(rebuild(cli, code=1)["set_aside"]) == 1
    command = [*cli.command, "doctor", "--rebuild", "--json"]
    environment = cli.environment | {"MLFLOW_IPFS_CHUNKER": "size-77777"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert cli("cat", cid).stdout == file.read_bytes()


def test_a_store_in_use_is_left_alone(cli: CommandLine, root: str) -> None:
    with open_local_storage(cli.store) as storage:
        storage.make_view_folder()
        assert "uses the store" in cli("doctor", "--rebuild", code=1).stderr
    assert cli("pin", "ls", "--json").records[0]["cid"] == root


def test_there_is_nothing_to_rebuild(cli: CommandLine) -> None:
    assert "there is no store" in cli("doctor", "--rebuild", code=3).stderr
    cli.store.mkdir()
    (cli.store / "diary.txt").write_text("mine")
    assert "holds no store" in cli("doctor", "--rebuild", code=1).stderr
    assert [path.name for path in cli.store.iterdir()] == ["diary.txt"]
