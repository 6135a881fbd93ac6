from __future__ import annotations

import re
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage

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
    assert "  sources      backup/store-" in done.lines[2]
    assert "  names        1 pin" in done.lines
    assert done.lines[-1] == "  next         restart the programs that had the store open"
    assert cli("pin", "ls", "--json").records[0]["cid"] == root


@pytest.mark.usefixtures("root")
def test_the_source_of_names_and_the_lost_names_are_reported(cli: CommandLine, tmp_path: Path) -> None:
    backup = next((cli.store / "backup").iterdir())
    made = re.sub(r"store-(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ).db", r"\1-\2-\3:\4:\5", backup.name)
    later = tmp_path / "later.bin"
    later.write_bytes(b"later" * 500_000)
    newer = cli("add", "-q", later).cid
    lose_index(cli)
    lines = cli("doctor", "--rebuild").lines
    assert any(line.startswith(f"  sources      backup/{backup.name}, made {made}: whole; 1 name, ") for line in lines)
    assert f"               names created after {made} are lost" in lines
    assert any("  recovered    1 root without a name, pinned for recovered/" in line for line in lines)
    record = rebuild(cli)
    assert (record["names_current"], record["recovered"]) == (True, [])
    assert record["sources"][0]["made_at"] is None, "this time store.db is there"
    assert newer in {item["cid"] for item in cli("pin", "ls", "--json").records}


def test_readable_names_of_a_damaged_index_are_recovered_and_reported(cli: CommandLine, root: str) -> None:
    with sqlite3.connect(cli.store / "store.db") as connection:
        connection.execute("UPDATE pin SET cid = x'00'")
    connection.close()
    done = cli("doctor", "--rebuild", code=1)
    assert any(line.startswith("  sources      store.db: damaged; 0 names") for line in done.lines)
    assert any("are lost if they were on damaged pages of store.db" in line for line in done.lines)
    assert "! lost         pin user (unreadable): its row in the old index is damaged" in done.lines
    assert [item["cid"] for item in cli("pin", "ls", "--json").records] == [root], "it came from the backup"


@pytest.mark.usefixtures("root")
def test_without_any_copy_all_names_are_lost(cli: CommandLine) -> None:
    lose_index(cli)
    for path in (cli.store / "backup").iterdir():
        path.unlink()
    done = cli("doctor", "--rebuild", code=1)
    assert "all names are lost" in done.stderr
    assert "`mlflow-ipfs restore`" in done.stderr
    lines = done.lines
    assert "  sources      none: neither an old index nor a backup of it was found" in lines
    assert "  names        none" in lines
    assert "               all names are lost, because no copy of the index is readable" in lines


def test_damaged_and_incomplete_content_is_listed_and_sets_the_exit_code(cli: CommandLine, root: str) -> None:
    big = next(path for path in (cli.store / "files").rglob("*") if path.is_file() and path.stat().st_size > 2_000_000)
    big.chmod(0o644)
    with big.open("r+b") as file:
        file.write(b"damaged")
    (cli.store / "files" / "00").mkdir(exist_ok=True)
    (cli.store / "files" / "00" / "\x1bodd\n").write_text("?")
    done = cli("doctor", "--rebuild", code=1)
    lines = done.lines
    assert f"! incomplete   pin user {root}: a block below it is missing or damaged" in lines
    assert any(line.startswith("! damaged      files/") and "1 of its 3 leaves" in line for line in lines)
    assert any(line.startswith("! quarantined  quarantine/") and "\\x1bodd\\n" in line for line in lines)
    assert "some content or names are damaged or lost" in done.stderr
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
    assert len(rebuild(cli, code=1)["quarantined"]) == 1
    command = [*cli.command, "doctor", "--rebuild", "--json"]
    environment = cli.environment | {"MLFLOW_IPFS_CHUNKER": "size-77777"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    assert cli("cat", cid).stdout == file.read_bytes()


def test_a_store_in_use_is_left_alone(cli: CommandLine, root: str) -> None:
    with open_local_storage(cli.store) as storage:
        storage.make_view_directory()
        assert "uses the store" in cli("doctor", "--rebuild", code=1).stderr
    assert cli("pin", "ls", "--json").records[0]["cid"] == root


def test_there_is_nothing_to_rebuild(cli: CommandLine) -> None:
    assert "no store found at" in cli("doctor", "--rebuild", code=3).stderr
    cli.store.mkdir()
    (cli.store / "diary.txt").write_text("mine")
    assert "is not a store" in cli("doctor", "--rebuild", code=3).stderr
    assert [path.name for path in cli.store.iterdir()] == ["diary.txt"]
