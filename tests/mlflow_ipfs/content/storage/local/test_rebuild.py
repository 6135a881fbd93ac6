"""A store whose index is lost or damaged gets a new one: what was named is whole, the rest is kept from every gc."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.repair.index_backups import list_backups, make_backup
from mlflow_ipfs.content.storage.local.repair.rebuild import LeftName, RebuildReport, rebuild_index
from mlflow_ipfs.errors import StoreFormatError
from support.lost_index import (
    CUTS,
    check_rebuilt,
    damage,
    fill,
    lose_index,
    publish_in_pack,
    put_entry,
    remember,
    remember_all,
)
from support.storages import (
    check_sound,
    publish_blocks,
    publish_file,
    rows_of,
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_without_a_backup_everything_is_recovered(directory: Path, tmp_path: Path, seed: int) -> None:
    with open_local_storage(directory) as storage:
        model = fill(storage, seed, tmp_path / "work")
        store_id = storage.store_id
        for row in rows_of(storage, "SELECT multihash, data FROM block WHERE data IS NOT NULL"):
            publish_in_pack(storage, *row)  # what is inline is lost with the index
    lose_index(directory, backups=False)
    report = rebuild_index(directory, chunkers=CUTS)
    assert (report.store_id, report.sources, report.lost, report.old_index) == (store_id, (), (), None)
    assert report.is_whole
    assert report.recovered
    check_rebuilt(directory, report, model, None)


@pytest.mark.parametrize("seed", range(6, 8))
@pytest.mark.slow
def test_with_a_backup_all_names_are_back(directory: Path, tmp_path: Path, seed: int) -> None:
    with open_local_storage(directory) as storage:
        model = fill(storage, seed, tmp_path / "work")
        assert make_backup(storage._context) is not None
    lose_index(directory)
    report = rebuild_index(directory)
    assert report.is_whole
    assert (report.sources[0].state, report.sources[0].names > 0) == ("whole", True)
    check_rebuilt(directory, report, model, model.names)


@pytest.mark.parametrize("seed", range(12, 14))
@pytest.mark.slow
def test_what_came_after_the_backup_is_recovered(directory: Path, tmp_path: Path, seed: int) -> None:
    with open_local_storage(directory) as storage:
        before = fill(storage, seed, tmp_path / "work")
        backup = make_backup(storage._context)
        later = {publish_file(storage, random.Random(seed).randbytes(5000), owner="later")}
        later |= {publish_file(storage, random.Random(seed + 100).randbytes(2500), owner="later", wrapped=True)}
        # Nodes of small publications were inline, and went with the index: they are made again.
        after = remember(storage, before.contents)
        storage.close()
    for path in (directory / "backup").iterdir():
        if path != backup:
            path.unlink()
    lose_index(directory)
    report = rebuild_index(directory)
    assert report.is_whole
    assert {root.multihash for root in later} <= {cid.multihash for cid in report.recovered}
    check_rebuilt(directory, report, after, before.names)


def test_a_sound_index_is_made_anew_and_garbage_stays_garbage(directory: Path, tmp_path: Path) -> None:
    with open_local_storage(directory) as storage:
        model = fill(storage, 99, tmp_path / "work")
        garbage = publish_file(storage, b"nobody wants it" * 300, owner=None)
    report = rebuild_index(directory)
    assert report.is_whole
    assert (report.recovered, report.recovered_owner) == ((), None)
    assert report.old_index is not None
    assert (report.old_index / "store.db").exists()
    with open_local_storage(directory) as storage:
        assert storage.blocks.has(garbage)
        storage.collect_garbage(grace_seconds=0)
        assert not storage.blocks.has(garbage)
    check_rebuilt(directory, report, model, model.names)


def test_what_was_recovered_is_in_a_backup_at_once(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, b"content" * 1000)
    lose_index(directory, backups=False)
    owner = rebuild_index(directory, chunkers=CUTS).recovered_owner
    assert owner is not None
    for path in directory.glob("store.db*"):
        path.unlink()
    report = rebuild_index(directory)
    assert [use.path.parent.name for use in report.sources] == ["backup"]
    assert report.recovered == ()
    with open_local_storage(directory) as storage:
        assert [(pin.owner, pin.cid) for pin in storage.pins.list()] == [(owner, root)]
        assert list_backups(storage._context.layout)


def test_the_backup_of_a_rebuild_is_the_newest_even_if_the_clock_was_set_back(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        first = make_backup(storage._context)
        assert first is not None
        root = publish_file(storage, b"content" * 1000)
    first.rename(first.with_name("store-20990101T000000Z.db"))
    lose_index(directory)
    owner = rebuild_index(directory, chunkers=CUTS).recovered_owner
    lose_index(directory)
    assert rebuild_index(directory).recovered == ()
    with open_local_storage(directory) as storage:
        assert [(pin.owner, pin.cid) for pin in storage.pins.list()] == [(owner, root)]


def test_pins_that_were_removed_after_a_backup_stay_removed(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        kept, dropped = publish_blocks(storage, b"kept", b"dropped", owner="me")
        make_backup(storage._context)
        storage.pins.remove(dropped, "me")
    rebuild_index(directory)
    with open_local_storage(directory) as storage:
        assert [(pin.owner, pin.cid) for pin in storage.pins.list()] == [("me", kept)]


@pytest.mark.parametrize("what", ["gone", "empty", "no database", "no tables", "first page", "everything"])
def test_an_index_that_cannot_be_used_at_all(directory: Path, what: str) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, b"content" * 1000)
        make_backup(storage._context)
    database = directory / "store.db"
    size = database.stat().st_size
    if what in ("gone", "no tables"):
        database.unlink()
    if what == "no tables":
        sqlite3.connect(database).execute("CREATE TABLE other (a)").connection.close()
    if what == "empty":
        database.write_bytes(b"")
    if what == "no database":
        database.write_bytes(b"not a database at all" * 1000)
    if what == "first page":
        damage(database, 0, 4096)
    if what == "everything":
        damage(database, 0, size)
    with pytest.raises(StoreFormatError, match="doctor --rebuild"):
        open_local_storage(directory)
    report = rebuild_index(directory)
    assert report.names[NameKind.PIN] == 1
    assert report.recovered == ()
    with open_local_storage(directory) as storage:
        assert [pin.cid for pin in storage.pins.list()] == [root]
        check_sound(storage)


@pytest.mark.parametrize("seed", range(4))
def test_an_index_with_damaged_pages_gives_what_can_be_read_and_the_backup_the_rest(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    with open_local_storage(directory) as storage:
        roots = publish_blocks(storage, *(b"block %d" % number for number in range(300)), owner="x" * 100)
        storage.refs.set("main", roots[0], expected_version=0)
        make_backup(storage._context)
        storage.refs.set("main", roots[1], expected_version=1)
    database = directory / "store.db"
    pages = database.stat().st_size // 4096
    for _ in range(4):
        damage(database, 4096 * chance.randrange(1, pages) + chance.randrange(4000), 90)
    report = rebuild_index(directory)
    with open_local_storage(directory) as storage:
        assert {pin.cid for pin in storage.pins.list()} >= set(roots)
        assert storage.refs.get("main").version in (1, 2)
        check_sound(storage)
        for root in roots:
            storage.blocks.get(root)
    assert report.sources[0].path == database


def test_mutable_names_of_a_damaged_index_are_newer_than_those_of_a_backup(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        old, new, newer = publish_blocks(storage, b"old", b"new", b"newer")
        storage.refs.set("main", old, expected_version=0)
        put_entry(storage, "a", old)
        put_entry(storage, "x/y", old)
        make_backup(storage._context)
        storage.refs.set("main", new, expected_version=1)
        storage.entries.delete("t", "x")
        put_entry(storage, "x", newer)
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("UPDATE pin SET cid = x'00' WHERE cid = ?", (bytes(new),))  # no CID: the table is damaged
        connection.execute("UPDATE entry SET cid = 'text' WHERE name = CAST('a' AS BLOB)")
    connection.close()
    report = rebuild_index(directory)
    with open_local_storage(directory) as storage:
        assert storage.refs.get("main").cid == new
        assert [(e.path, e.cid) for e in storage.entries.walk("t", "")] == [("a", old), ("x", newer)]
        assert {pin.cid for pin in storage.pins.list()} == {old, new, newer}
    assert {(name.kind, name.name, name.cid) for name in report.lost} == {
        ("pin", "user", None),
        ("file", "mfs://t/a", None),
    }


def test_names_without_content_are_left_out_and_reported(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        here, removed = publish_blocks(storage, b"here", b"removed", owner="me")
        make_backup(storage._context)
        storage.pins.remove(removed, "me")
        [gone] = publish_blocks(storage, b"gone", owner="me")
        storage.refs.set("main", gone, expected_version=0)
        storage.entries.freeze(Frozen("t", "a/b", gone))
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("DELETE FROM block WHERE multihash = ?", (gone.multihash,))
    connection.close()
    report = rebuild_index(directory)
    assert not report.is_whole
    assert set(report.lost) == {
        LeftName(NameKind.PIN, "me", gone), LeftName(NameKind.REF, "main", gone), LeftName(NameKind.FROZEN, "mfs://t/a/b", gone),
    }  # fmt: skip
    with open_local_storage(directory) as storage:
        assert [pin.cid for pin in storage.pins.list()] == [here]
        storage.collect_garbage(grace_seconds=0)


def test_a_block_that_the_index_lost_comes_from_a_backup(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        root = publish_file(storage, b"content" * 1000)
        make_backup(storage._context)
    with sqlite3.connect(directory / "store.db") as connection:
        assert connection.execute("DELETE FROM block WHERE data IS NOT NULL").rowcount > 0
    connection.close()
    assert rebuild_index(directory).is_whole
    with open_local_storage(directory) as storage:
        assert open_unixfs(storage.blocks, root).read() == b"content" * 1000


def test_a_rotten_block_of_the_index_comes_from_a_backup(directory: Path) -> None:
    """SQLite does not notice a changed byte in a value; the block's hash does."""
    with open_local_storage(directory) as storage:
        [rotten, removed] = publish_blocks(storage, b"rotten", b"removed", owner="me")
        make_backup(storage._context)
        storage.pins.remove(removed, "me")
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("UPDATE block SET data = CAST('rottem' AS BLOB) WHERE multihash = ?", (rotten.multihash,))
    connection.close()
    report = rebuild_index(directory)
    assert report.is_whole
    assert report.are_names_current
    assert [(use.state, use.blocks) for use in report.sources] == [("damaged", 1), ("whole", 1)]
    with open_local_storage(directory) as storage:
        assert storage.blocks.get(rotten) == b"rotten"
        assert [pin.cid for pin in storage.pins.list(owner_prefix="me")] == [rotten]


def test_states_and_the_number_of_the_last_condemnation_go_on(directory: Path) -> None:
    with open_local_storage(directory) as storage:
        publish_blocks(storage, b"unneeded" * 10_000, owner=None)
        [cid] = publish_blocks(storage, b"pending", owner=None)
        storage.pins.add(Pin("model-version:1", cid, PinState.PENDING))
        storage.collect_garbage(grace_seconds=1000)
        with storage._context.database.write() as connection:
            connection.execute(
                "INSERT INTO outbox (target, action, cid, created_at) VALUES ('t', 'a', ?, 1)", (bytes(cid),)
            )
        storage.notes.set("database/1", "{}")
        meta = rows_of(storage, "SELECT key, value FROM meta ORDER BY key")
    assert "last_condemnation" in dict(meta)
    rebuild_index(directory)
    with open_local_storage(directory) as storage:
        assert rows_of(storage, "SELECT key, value FROM meta ORDER BY key") == meta
        assert [pin.state for pin in storage.pins.list()] == [PinState.PENDING]
        assert rows_of(storage, "SELECT count(*) FROM outbox") == [(1,)]
        assert rows_of(storage, "SELECT count(*) FROM place WHERE condemned_at IS NOT NULL") == [(0,)]


VECTORS = sorted((Path(__file__).parents[4] / "vectors").glob("store-format-*"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.name)
@pytest.mark.parametrize("backup", [True, False])
def test_stores_of_each_format(vector: Path, directory: Path, backup: bool) -> None:
    shutil.copytree(vector / "store", directory, copy_function=shutil.copyfile)
    with open_local_storage(directory) as storage:
        storage.notes.set("database/1", "{}")
        model = remember_all(storage)
        if backup:
            make_backup(storage._context)
    lose_index(directory, backups=backup)
    report: RebuildReport = rebuild_index(directory, chunkers=CUTS)
    if backup:
        assert report.is_whole
    with open_local_storage(directory) as storage:
        for kind, names in model.items():
            if backup:
                assert [n for n in remember_all(storage)[kind] if not n[0].startswith("recovered/")] == names
        check_sound(storage)
        assert storage.scrub().problems == ()
