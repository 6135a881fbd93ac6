from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.local import open_local_storage
from support.command_line import CommandLine
from support.storages import delete_block

if TYPE_CHECKING:
    from pathlib import Path

OWNER = "model-version:0123456789abcdef/digits/1"


def pin_for_version(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.pins.add(Pin(OWNER, CID.parse(root)))


def owners(cli: CommandLine, *arguments: str) -> list[str]:
    return [record["owner"] for record in cli("pin", "ls", "--json", *arguments).records]


def test_a_part_may_be_pinned_for_itself(cli: CommandLine, root: str) -> None:
    (sub,) = cli("pin", "add", f"{root}/sub").lines
    cli("pin", "rm", root)
    cli("gc", "--grace", "0")
    assert cli("ls", sub.split()[-1]).lines[0].endswith("small.txt")


def test_a_mutable_path_is_pinned_as_it_is_now(cli: CommandLine, directory: Path) -> None:
    run = MfsPath.parse("mfs://mlflow/0/run/artifacts")
    with open_store(Settings(store=cli.store)) as store:
        store.files.put_tree(run, directory)
        expected = str(store.files.snapshot(run, only_hash=True).cid)
    assert cli("pin", "add", str(run)).lines == [f"pinned  {run}  {expected}"]
    with open_store(Settings(store=cli.store)) as store:
        store.files.delete(run)
    cli("gc", "--grace", "0")
    assert cli("verify", expected).lines[-1] == "verified  every block"
    assert cli("cat", f"{expected}/sub/small.txt").stdout == b"small\n"
    assert [line.split()[-1] for line in cli("pin", "ls").lines] == [str(run)]
    assert cli("pin", "ls", str(run), "--json").records[0]["cid"] == expected
    assert cli("pin", "rm", str(run)).lines == [f"unpinned  {expected}"]
    assert cli("pin", "ls").lines == []


def test_frozen_content_is_pinned_as_it_is(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.storage.entries.freeze(Frozen("mlflow", "0/run", CID.parse(root)))
    sub = cli("ls", "--json", f"mfs://mlflow/0/run/@{root}").records[-1]["cid"]
    assert cli("pin", "add", f"mfs://mlflow/0/run/@{root}/sub", "--json").records == [
        {"content": f"mfs://mlflow/0/run/@{root}/sub", "cid": sub, "owner": "user", "other_models": []}
    ]


def test_a_mutable_path_of_nothing_is_3(cli: CommandLine, root: str) -> None:
    del root
    for command in ("add", "rm", "ls"):
        assert "there is no file at or below mfs://mlflow/9" in cli("pin", command, "mfs://mlflow/9", code=3).stderr


def test_pin_ls_shows_cid_state_and_owner(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    version, user = (re.split("  +", line) for line in cli("pin", "ls").lines)
    assert version == [root, "confirmed", OWNER, "2.6 MB", "-", "digits/1"]
    assert user[:4] == [root, "confirmed", "user", "2.6 MB"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\dZ", user[4])
    assert user[5] == "data"
    assert owners(cli, "--owner", "model-version:") == [OWNER]
    assert owners(cli, root) == [OWNER, "user"]
    assert cli("pin", "ls", f"{root}/sub").stdout == b""


def test_pinning_what_is_not_complete_is_3(cli: CommandLine, root: str) -> None:
    lost = cli("ls", "--json", f"{root}/sub").records[0]["cid"]
    with open_local_storage(cli.store) as storage:
        delete_block(storage, CID.parse(lost))
    assert lost in cli("pin", "add", root, code=3).stderr


def test_unpinning_twice_is_3(cli: CommandLine, root: str) -> None:
    cli("pin", "rm", root)
    assert (
        cli("pin", "rm", root, code=3).stderr
        == f"mlflow-ipfs: {root} is not pinned; `mlflow-ipfs pin ls` lists all pins\n"
    )


def test_unpinning_a_part_names_the_pinned_content_that_it_belongs_to(cli: CommandLine, root: str) -> None:
    outcome = cli("pin", "rm", f"{root}/sub", code=3)
    assert (
        f"{root}/sub is not pinned itself: it is part of {root}, which is pinned by 'user'; to release it, unpin {root}"
        in outcome.stderr
    )
    assert "--owner" not in outcome.stderr
    assert cli("pin", "ls", root).lines
    pin_for_version(cli, part := cli("pin", "add", f"{root}/sub").cid)
    cli("pin", "rm", f"{root}/sub")
    assert "but by 'model-version:" in cli("pin", "rm", f"{root}/sub", code=5).stderr
    assert cli("pin", "ls", part).lines


def test_the_pin_of_another_owner_is_not_dropped_by_mistake(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    cli("pin", "rm", root)
    outcome = cli("pin", "rm", root, code=5)
    assert OWNER in outcome.stderr
    assert owners(cli) == [OWNER]


def test_the_pin_of_a_model_version_is_removed_only_by_force(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    assert "delete the version in MLflow" in cli("pin", "rm", root, "--owner", OWNER, code=5).stderr
    assert owners(cli) == [OWNER, "user"]
    cli("pin", "rm", root, "--owner", OWNER, "--force")
    assert owners(cli) == ["user"]


def test_the_pin_of_what_is_gone_can_still_be_dropped(cli: CommandLine, root: str) -> None:
    with open_local_storage(cli.store) as storage:
        delete_block(storage, CID.parse(root))
    cli("pin", "rm", root)


def test_a_pin_remembers_what_was_added_and_when(cli: CommandLine, directory: Path) -> None:
    before = int(time.time())
    root = cli("add", "-q", directory).cid
    cli("add", "-q", "-", stdin=b"from a pipe")
    cli("pin", "add", f"{root}/sub")
    cli("pin", "add", root)  # the bare CID does not replace the name
    records = {record["name"]: record for record in cli("pin", "ls", "--json").records}
    assert set(records) == {"data", "", f"{root}/sub"}
    assert all(before <= record["added_at"] <= time.time() for record in records.values())
    assert records[""]["size_bytes"] == len("from a pipe")
    cli("car", "export", root, "-o", "x.car")
    other = CommandLine(directory.parent / "other")
    other("car", "import", "x.car")
    assert other("pin", "ls", "--json").records[0]["name"] == "x.car"


def test_a_removed_pin_leaves_no_note(cli: CommandLine, root: str) -> None:
    cli("pin", "rm", root)
    with open_store(Settings(store=cli.store)) as store:
        assert dict(store.storage.notes.list()) == {}


def test_a_pin_from_before_labels_is_listed(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        for key in store.storage.notes.list():
            store.storage.notes.delete(key)
        store.storage.notes.set(f"pin/{root}/user", "damaged")
    (record,) = cli("pin", "ls", "--json").records
    assert (record["name"], record["added_at"], record["cid"]) == ("", None, root)


def test_the_size_of_damaged_content_is_unknown(cli: CommandLine, root: str) -> None:
    with open_local_storage(cli.store) as storage:
        delete_block(storage, CID.parse(root))
    assert cli("pin", "ls", "--json").records[0]["size_bytes"] is None
    assert re.split("  +", cli("pin", "ls").lines[0])[3] == "-"


def test_pin_add_says_who_can_read_the_content_from_now_on(cli: CommandLine, root: str) -> None:
    assert "every client of a server with this store that knows the CID can register" in cli("pin", "add", root).stderr
    assert cli("pin", "add", root, "--json").stderr == ""
    shown = " ".join(cli("pin", "add", "--help").stdout.decode().split())
    assert "can then register a model version" in shown
