from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pins import Pin

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.command_line import CommandLine

OWNER = "model-version:0123456789abcdef/digits/1"


def pin_for_version(cli: CommandLine, root: str) -> None:
    with open_store(Settings(store=cli.store)) as store:
        store.pins.add(Pin(OWNER, CID.parse(root)))


def test_gc_removes_an_unpinned_root_and_keeps_a_pinned_one(cli: CommandLine, root: str, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    kept = cli("add", "-q", "kept").lines[0]
    assert cli("pin", "rm", root).lines == [f"unpinned  {root}"]
    *kept_by, would = cli("gc", "--dry-run", "--grace", "0").lines
    assert kept_by == [f"kept by  pin  user  {kept}"]
    assert would == "would remove 10 blocks (2.6 MB); would keep 1 block"
    later = "10 blocks (2.6 MB) deletable after a grace period of 24 h (--grace 0: now)"
    for _ in range(2):
        assert cli("gc").lines == [f"removed 0 blocks (0 B); kept 1 block; {later}"]
        cli("verify", root)
    assert cli("gc", "--grace", "0").lines == ["removed 10 blocks (2.6 MB); kept 1 block"]
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


def test_dry_run_lists_what_keeps_each_root(cli: CommandLine, root: str) -> None:
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


def test_of_many_roots_a_dry_run_shows_groups_and_all_on_demand(cli: CommandLine) -> None:
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
        "         (groups of 120 names; --all or --json lists each name)",
        "would remove 0 blocks (0 B); would keep 33 blocks",
    ]
    assert len(cli("gc", "--dry-run", "--all").lines) == 121
    assert len(cli("gc", "--dry-run", "--json").records) == 121
    assert "--all requires --dry-run" in cli("gc", "--all", code=2).stderr


def test_gc_reports_what_left_the_cache(cli: CommandLine, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del root
    with open_store(Settings(store=cli.store)) as store, store.storage.publish(in_cache=True) as publication:
        data = b"cached" * 20_000
        publication.put(CID.of(data), data)
        publication.commit()
    assert cli("gc").lines == ["removed 0 blocks (0 B); kept 11 blocks"]
    monkeypatch.setenv("MLFLOW_IPFS_CACHE_BYTES", "0")
    end = "; {} 1 file (120.1 kB) from the cache"
    assert (
        cli("gc", "--dry-run").lines[-1]
        == f"would remove 0 blocks (0 B); would keep 10 blocks{end.format('would remove')}"
    )
    assert cli("gc").lines == [f"removed 0 blocks (0 B); kept 10 blocks{end.format('removed')}"]
    [record] = cli("gc", "--json").records
    assert (record["evicted_files"], record["evicted_bytes"]) == (0, 0)
