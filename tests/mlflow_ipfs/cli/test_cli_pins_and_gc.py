from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.local import open_local_storage
from support.storages import delete_block

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.command_line import CommandLine

OWNER = "model-version:0123456789abcdef/digits/1"


def pin_for_version(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.pins.add(Pin(OWNER, CID.parse(root)))


def owners(cli: CommandLine, *arguments: str) -> list[str]:
    return [record["owner"] for record in cli("pin", "ls", "--json", *arguments).records]


def test_an_unpinned_root_goes_with_gc_and_a_pinned_one_stays(cli: CommandLine, root: str, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    kept = cli("add", "-q", "kept").lines[0]
    assert cli("pin", "rm", root).lines == [f"unpinned  {root}"]
    *kept_by, would = cli("gc", "--dry-run", "--grace", "0").lines
    assert kept_by == [f"kept by  pin  user  {kept}"]
    assert would == "would remove 10 blocks, 2.6 MB; 1 block kept"
    later = "10 blocks, 2.6 MB to go after 24 h (--grace 0: now)"
    for _ in range(2):
        assert cli("gc").lines == [f"removed 0 blocks, 0 B; 1 block kept; {later}"]
        cli("verify", root)
    assert cli("gc", "--grace", "0").lines == ["removed 10 blocks, 2.6 MB; 1 block kept"]
    cli("ls", root, code=3)
    cli("cat", kept)


def test_gc_as_json(cli: CommandLine, root: str) -> None:
    (record,) = cli("gc", "--json").records
    assert record == {"kept_blocks": 10, "removed_blocks": 0, "freed_bytes": 0, "dry_run": False} | {
        "deletable_blocks": 0,
        "deletable_bytes": 0,
        "evicted_files": 0,
        "evicted_bytes": 0,
    }
    cli("verify", root)


def test_dry_run_names_what_keeps_each_root(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    with open_store(Settings(store=cli.store)) as store:
        store.refs.set("datasets/digits", CID.parse(root), expected_version=0)
        for name in ("a.txt", "b.txt"):
            store.files.put_stream(MfsPath.parse(f"mfs://mlflow/0/run/artifacts/{name}"), io.BytesIO(b"1234"))
    lines = [line.split(maxsplit=3) for line in cli("gc", "--dry-run").lines[:-1]]
    assert [(kind, *rest.split(maxsplit=1)) for _, _, kind, rest in lines] == [
        ("pin", OWNER, root),
        ("pin", "user", root),
        ("ref", "datasets/digits", root),
        ("files", "mfs://mlflow/0/run/artifacts", "2 files, 8 B"),
    ]
    *records, report = cli("gc", "--dry-run", "--json").records
    assert [(record["kind"], record["cid"], record["file_count"]) for record in records][-2:] == [
        ("ref", root, 0),
        ("files", None, 2),
    ]
    assert report["dry_run"]


def test_of_many_keepers_a_dry_run_shows_groups_and_all_on_demand(cli: CommandLine) -> None:
    with open_store(Settings(store=cli.store)) as store:
        for number in range(60):
            place = MfsPath.parse(f"mfs://mlflow/{number % 3}/run{number}/artifacts/a.txt")
            store.files.put_stream(place, io.BytesIO(b"1234" * (number % 3 + 1)))
        for number in range(30):
            root = store.add_bytes(b"%d" % number, pin=f"model-version:0123456789abcdef/digits/{number}")
            store.refs.set(f"datasets/{number}", root, expected_version=0)
    lines = cli("gc", "--dry-run").lines
    assert lines[:4] == [
        "kept by  experiment  mfs://mlflow/2  20 files in 20 directories, 240 B",
        "kept by  experiment  mfs://mlflow/1  20 files in 20 directories, 160 B",
        "kept by  experiment  mfs://mlflow/0  20 files in 20 directories, 80 B",
        "kept by  model       digits          30 versions",
    ]
    assert all(line.startswith("kept by  ref         datasets/") for line in lines[4:20])
    assert lines[20:] == [
        "kept by  14 more names in 14 more groups",
        "         (these are groups of 120 names; --all or --json names each)",
        "would remove 0 blocks, 0 B; 33 blocks kept",
    ]
    assert len(cli("gc", "--dry-run", "--all").lines) == 121
    assert len(cli("gc", "--dry-run", "--json").records) == 121
    assert "add --dry-run" in cli("gc", "--all", code=2).stderr


def test_gc_says_what_left_the_cache(cli: CommandLine, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del root
    with open_store(Settings(store=cli.store)) as store, store.storage.publish(in_cache=True) as publication:
        data = b"cached" * 20_000
        publication.put(CID.of(data), data)
        publication.commit()
    assert cli("gc").lines == ["removed 0 blocks, 0 B; 11 blocks kept"]
    monkeypatch.setenv("MLFLOW_IPFS_CACHE_BYTES", "0")
    end = "; {} 1 file, 120.1 kB, from the cache"
    assert cli("gc", "--dry-run").lines[-1] == f"would remove 0 blocks, 0 B; 10 blocks kept{end.format('would remove')}"
    assert cli("gc").lines == [f"removed 0 blocks, 0 B; 10 blocks kept{end.format('removed')}"]
    [record] = cli("gc", "--json").records
    assert (record["evicted_files"], record["evicted_bytes"]) == (0, 0)


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
    assert cli("pin", "ls").lines == [f"{expected}  confirmed  user"]


def test_frozen_content_is_pinned_as_it_is(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.storage.entries.freeze(Frozen("mlflow", "0/run", CID.parse(root)))
    sub = cli("ls", "--json", f"mfs://mlflow/0/run/@{root}").records[-1]["cid"]
    assert cli("pin", "add", f"mfs://mlflow/0/run/@{root}/sub", "--json").records == [
        {"content": f"mfs://mlflow/0/run/@{root}/sub", "cid": sub, "owner": "user"}
    ]


def test_a_mutable_path_of_nothing_is_3_and_only_a_cid_can_be_unpinned(cli: CommandLine, root: str) -> None:
    del root
    assert "there is no file at or below mfs://mlflow/9" in cli("pin", "add", "mfs://mlflow/9", code=3).stderr
    for command in ("rm", "ls"):
        assert "name the CID, as `mlflow-ipfs pin ls` shows it" in cli("pin", command, "mfs://mlflow/0", code=2).stderr


def test_pin_ls_shows_cid_state_and_owner(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    assert cli("pin", "ls").lines == [f"{root}  confirmed  {OWNER}", f"{root}  confirmed  user"]
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
    assert cli("pin", "rm", root, code=3).stderr == f"mlflow-ipfs: {root} is not pinned\n"


def test_unpinning_a_part_names_the_pinned_content_that_it_belongs_to(cli: CommandLine, root: str) -> None:
    outcome = cli("pin", "rm", f"{root}/sub", code=3)
    assert f"{root}/sub is not pinned itself: it is part of {root}, which is pinned by 'user'" in outcome.stderr
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


def test_the_pin_of_a_model_version_goes_only_by_force(cli: CommandLine, root: str) -> None:
    pin_for_version(cli, root)
    assert "delete the version in MLflow" in cli("pin", "rm", root, "--owner", OWNER, code=5).stderr
    assert owners(cli) == [OWNER, "user"]
    cli("pin", "rm", root, "--owner", OWNER, "--force")
    assert owners(cli) == ["user"]


def test_the_pin_of_what_is_gone_can_still_be_dropped(cli: CommandLine, root: str) -> None:
    with open_local_storage(cli.store) as storage:
        delete_block(storage, CID.parse(root))
    cli("pin", "rm", root)
