"""Tests of `mlflow-ipfs scrub`: damage, the names that it affects, and healing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs import CID, Settings, open_store
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.local import open_local_storage
from support.clones import flip_bytes_of
from support.storages import delete_block

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

BIG_CUT = 1 << 20
RUN = "mfs://mlflow/0/run/artifacts"


def rot(cli: CommandLine, directory: Path) -> None:
    """Damage the last leaves of ``big.bin``."""
    flip_bytes_of(cli.store, (directory / "big.bin").read_bytes()[BIG_CUT:])


def name_everywhere(cli: CommandLine, root: str, directory: Path, runs: int = 1) -> CID:
    """Create files of runs, a frozen model version of one of them, and a ref; return the CID of the version."""
    with open_store(Settings(store=cli.store)) as store:
        for number in range(runs):
            store.files.put_tree(MfsPath.parse(f"mfs://mlflow/0/run{number or ''}/artifacts"), directory)
        store.refs.set("datasets/digits", CID.parse(root), expected_version=0)
        store.add_bytes(b"sound")
        return store.files.freeze(MfsPath.parse(RUN), "model-version:0123456789abcdef/digits/3").cid


def test_an_intact_store_is_reported_as_intact(cli: CommandLine, root: str) -> None:
    del root
    assert cli("scrub").lines == ["hashed    10 blocks, 2.6 MB", "verified  every block; no damage found"]
    [record] = cli("scrub", "--json").records
    counts = {"problems": 0, "healed_count": 0, "affected_count": 0, "incomplete_count": 0}
    assert record == {"blocks": 10, "size_bytes": 2_560_514} | counts


def test_damage_is_listed_with_all_names_that_it_affects(cli: CommandLine, root: str, directory: Path) -> None:
    version = name_everywhere(cli, root, directory)
    rot(cli, directory)
    outcome = cli("scrub", "--json", code=4)
    problem, *names, sums = outcome.records
    assert "quarantine" in problem["reason"]
    assert not problem["unneeded"]
    assert [(name["kind"], name["name"], name["cid"]) for name in names] == [
        ("file", f"{RUN}/big.bin", problem["cid"]),
        ("frozen", RUN, str(version)),
        ("pin", "model-version:0123456789abcdef/digits/3", str(version)),
        ("pin", "user", root),
        ("ref", "datasets/digits", root),
    ]
    assert all(name["damaged"] == [problem["cid"]] for name in names)
    assert (sums["problems"], sums["affected_count"]) == (1, 5)
    cli("verify", root, code=4)


def test_damage_in_the_text_output(cli: CommandLine, root: str, directory: Path) -> None:
    version = name_everywhere(cli, root, directory)
    rot(cli, directory)
    outcome = cli("scrub", code=4)
    problem, reason, *affected, hashed = outcome.lines
    assert problem.startswith("problem   bafybei")
    assert "is damaged in its leaf" in reason
    assert affected == [
        f"affected  model version  digits/3  {version}",
        f"affected  frozen         {RUN}/@{version}",
        f"affected  file           {RUN}/big.bin",
        f"affected  ref            datasets/digits  {root}",
        f"affected  pin            user  {root}",
    ]
    assert hashed.startswith("hashed    ")
    assert "1 problem found, affecting 5 names; add the damaged content again" in outcome.stderr.splitlines()[-1]
    cli("verify", f"{RUN}/@{version}", code=4)
    assert cli("verify", f"{RUN}/big.bin", code=4).lines[-5:] == affected  # with the name that was verified


def test_of_many_runs_a_few_are_shown(cli: CommandLine, root: str, directory: Path) -> None:
    name_everywhere(cli, root, directory, runs=25)
    rot(cli, directory)
    files = [line for line in cli("scrub", code=4).lines if line.startswith("affected  file ")]
    assert len(files) == 11
    assert files[-1].endswith("… and 15 more; --json lists all")
    records = cli("scrub", "--json", code=4).records
    assert sum(record.get("kind") == "file" for record in records) == 25


def test_damage_that_affects_no_name_is_reported_as_such(cli: CommandLine, root: str, directory: Path) -> None:
    cli("pin", "rm", root)
    rot(cli, directory)
    outcome = cli("scrub", code=4)
    assert outcome.lines[2] == "          no name needs this block"
    assert "in content that no name needs; `mlflow-ipfs gc` removes it" in outcome.stderr.splitlines()[-1]
    assert cli("scrub", "--json", code=4).records[0]["unneeded"]


@pytest.mark.parametrize("place", ["", "store"])
def test_a_backup_heals_whichever_of_its_directories_is_named(
    cli: CommandLine, root: str, directory: Path, tmp_path: Path, place: str
) -> None:
    cli("backup", tmp_path / "backup", "--store-only")
    rot(cli, directory)
    cli("verify", root, code=4)
    healed, hashed, verified = cli("scrub", "--heal-from", tmp_path / "backup" / place).lines
    assert healed.startswith("healed    bafybei")
    assert hashed.startswith("hashed    ")
    assert verified == "verified  every block; all damage was healed"
    assert cli("verify", root).lines[-1] == "verified  every block"
    assert cli("scrub", "--json").records[-1]["healed_count"] == 0


def test_another_store_heals_too(cli: CommandLine, root: str, directory: Path, tmp_path: Path) -> None:
    shutil.copytree(cli.store, tmp_path / "copy", symlinks=True)
    rot(cli, directory)
    cli("scrub", "--heal-from", tmp_path / "copy")
    cli("verify", root)


def test_a_directory_to_heal_from_must_be_a_store_or_a_backup(cli: CommandLine, root: str, tmp_path: Path) -> None:
    del root
    for directory in (tmp_path, tmp_path / "nowhere"):
        assert "is neither a store nor a backup" in cli("scrub", "--heal-from", directory, code=3).stderr
    assert "is the store itself" in cli("scrub", "--heal-from", cli.store, code=2).stderr


def test_a_backup_that_is_not_complete_heals_nothing(cli: CommandLine, root: str, tmp_path: Path) -> None:
    del root
    cli("backup", tmp_path / "backup", "--store-only")
    manifest = tmp_path / "backup/backup.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    assert "is not complete" in cli("scrub", "--heal-from", tmp_path / "backup", code=1).stderr


def test_names_with_missing_blocks_are_listed(cli: CommandLine, root: str, directory: Path) -> None:
    version = name_everywhere(cli, root, directory)
    lost = cli("cid", f"{root}/sub/small.txt").cid
    with open_local_storage(cli.store) as storage:
        delete_block(storage, CID.parse(lost))
    outcome = cli("scrub", "--json", code=4)
    *names, sums = outcome.records
    assert [(name["kind"], name["name"], name["damaged"]) for name in names] == [
        ("pin", "model-version:0123456789abcdef/digits/3", [lost]),
        ("pin", "user", [lost]),
        ("ref", "datasets/digits", [lost]),
        ("file", f"{RUN}/link", [lost]),
        ("file", f"{RUN}/sub/small.txt", [lost]),
        ("frozen", RUN, [lost]),
    ]
    assert sums["incomplete_count"] == 6
    text = cli("scrub", code=4)
    assert f"incomplete  model version  digits/3  {version}" in text.lines
    assert "6 names with missing blocks, which this store does not contain; add the content again" in text.stderr
    cli("add", directory)
    cli("scrub")
