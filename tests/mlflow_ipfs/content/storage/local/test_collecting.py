"""Garbage collection concurrent with publications and new names: deletable, tombstoned, deleted."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.car.format import CarReader
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import encode_node
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.storage.local.files.open_publications import oldest_open
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import NotFoundError
from support.processes import fork_child, wait_until
from support.storages import check_sound, files_of, publish_blocks, publish_file, raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 24 * 3600


def count_marked(directory: Path) -> int:
    with sqlite3.connect(directory / "store.db") as connection:
        return int(connection.execute("SELECT count(*) FROM place WHERE condemned_at IS NOT NULL").fetchone()[0])


def let_time_pass(directory: Path, seconds: int) -> None:
    """Make all deletable files look as if they had been marked earlier."""
    with sqlite3.connect(directory / "store.db") as connection:
        connection.execute("UPDATE place SET condemned_at = condemned_at - ?", (seconds,))


def publish_pack(storage: LocalStorage, count: int, *, owner: str | None = USER, salt: bytes = b"") -> list[CID]:
    """Publish blocks of 1,000 bytes in one pack."""
    blocks = [raw(salt + index.to_bytes(4, "big") * 250) for index in range(count)]
    with storage.publish() as publication:
        for cid, data in blocks:
            publication.put(cid, data)
        publication.commit(Changes(pins=[Pin(owner, cid) for cid, _ in blocks] if owner else []))
    return [cid for cid, _ in blocks]


def test_the_grace_period_starts_when_a_file_is_marked_deletable(storage: LocalStorage, directory: Path) -> None:
    gone = publish_file(storage, b"gone" * 5000, owner=None)
    assert storage.collect_garbage(grace_seconds=DAY).deletable_blocks > 0
    let_time_pass(directory, DAY - 100)
    assert storage.collect_garbage(grace_seconds=DAY).removed_blocks == 0
    let_time_pass(directory, 200)
    assert storage.collect_garbage(grace_seconds=DAY, dry_run=True).removed_blocks > 0
    assert storage.blocks.has(gone)
    report = storage.collect_garbage(grace_seconds=DAY)
    assert report.removed_blocks > 0
    assert report.deletable_blocks == 0
    assert not storage.blocks.has(gone)
    assert not files_of(storage)


def test_files_without_a_row_have_a_grace_period_too(storage: LocalStorage, directory: Path) -> None:
    stray = directory / "files/00/stray"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"123")
    assert storage.collect_garbage(grace_seconds=DAY).freed_bytes == 0
    old = time.time() - DAY - 100
    os.utime(stray, (old, old))
    assert storage.collect_garbage(grace_seconds=DAY).freed_bytes == 3
    assert not stray.exists()


def test_inline_garbage_waits_in_a_pack(storage: LocalStorage, directory: Path) -> None:
    [gone] = publish_blocks(storage, b"small", owner=None)
    storage.collect_garbage(grace_seconds=DAY)
    assert len(files_of(storage)) == count_marked(directory) == 1
    assert storage.blocks.get(gone) == b"small"
    publish_blocks(storage, b"small")
    storage.collect_garbage()
    assert not files_of(storage)
    assert storage.blocks.get(gone) == b"small"


def test_deletable_content_is_written_again_and_the_old_file_is_deleted(storage: LocalStorage, directory: Path) -> None:
    data = os.urandom(40_000)
    first = publish_file(storage, data, owner=None)
    storage.collect_garbage(grace_seconds=DAY)
    [old] = [path for path in files_of(storage) if not str(path).endswith(".car")]
    assert publish_file(storage, data) == first
    storage.collect_garbage()
    assert old not in files_of(storage)
    path = storage.file_path(first)
    assert path is not None
    assert path.read_bytes() == data
    assert count_marked(directory) == 0


def test_a_publication_that_began_before_the_marking_delays_the_deletion(directory: Path) -> None:
    with open_local_storage(directory) as storage, open_local_storage(directory) as other:
        [cid] = publish_blocks(storage, b"relied on", owner=None)
        with storage.publish() as early:
            assert early.has(cid)
            other.collect_garbage(grace_seconds=DAY)
            with other.publish() as late:
                assert not late.has(cid), "a publication that starts after the marking must put the block again"
            let_time_pass(directory, 2 * DAY)
            # The publication recorded a number from before the marking, whatever the clock says.
            assert other.collect_garbage(grace_seconds=DAY).removed_blocks == 0
            early.commit(Changes(pins=[Pin(USER, cid)]))
        other.collect_garbage()
        assert storage.blocks.get(cid) == b"relied on"
        assert count_marked(directory) == 0


def test_a_publication_that_began_after_the_marking_does_not_delay_the_deletion(storage: LocalStorage) -> None:
    [cid] = publish_blocks(storage, b"garbage", owner=None)
    storage.collect_garbage(grace_seconds=DAY)
    with storage.publish():
        assert storage.collect_garbage(grace_seconds=0).removed_blocks == 1
    assert not storage.blocks.has(cid)


def test_a_publication_that_holds_existing_content_delays_every_deletion(
    storage: LocalStorage, directory: Path
) -> None:
    root = publish_file(storage, b"deletable" * 500, owner=None)
    storage.collect_garbage(grace_seconds=DAY)
    with storage.publish(hold_existing=True) as publication:
        assert [cid for cid, _ in walk_blocks(storage.blocks, root)]
        with open_local_storage(directory) as other:
            assert other.collect_garbage().removed_blocks == 0
        publication.commit(Changes(pins=[Pin(USER, root)]))
    storage.collect_garbage()
    assert [cid for cid, _ in walk_blocks(storage.blocks, root)]
    storage.pins.remove(root)
    assert storage.collect_garbage().removed_blocks > 0


@pytest.mark.parametrize("commits", range(5))
def test_a_publication_that_holds_existing_content_may_start_at_any_moment(directory: Path, commits: int) -> None:
    """It starts before each commit of gc. Either the pinned content is complete, or the pin is refused."""
    with open_local_storage(directory) as storage:
        root = publish_file(storage, b"deletable" * 500, owner=None)
        storage.collect_garbage(grace_seconds=DAY)
    reader, writer = os.pipe()
    child = fork_child(partial(pin_when_told, directory, root, reader))

    class LateDisk(Disk):
        left = commits

        def commit(self, connection: sqlite3.Connection) -> None:
            if self.left == 0:
                os.write(writer, b"now")
                wait_until(
                    lambda: list(directory.glob("sessions/publication-*")), timeout_seconds=10, what="the publication"
                )
            self.left -= 1
            super().commit(connection)

    with open_local_storage(directory, disk=(disk := LateDisk())) as other:
        other.collect_garbage()
        disk.left = -1
        os.write(writer, b"now")  # for a publication that starts after the last commit
        assert os.waitpid(child, 0)[1] == 0
        other.collect_garbage()
        pins = [pin.cid for pin in other.pins.list()]
        assert pins in ([], [root])
        if pins:
            assert [cid for cid, _ in walk_blocks(other.blocks, root)]
        else:
            assert not other.blocks.has(root)


def pin_when_told(directory: Path, root: CID, pipe: int) -> None:
    os.read(pipe, 1)
    with open_local_storage(directory) as storage, suppress(NotFoundError):
        ContentStore(storage).pin(root)


def test_a_publication_removes_its_file(storage: LocalStorage, directory: Path) -> None:
    with storage.publish():
        assert oldest_open(storage._context.layout) == 0
    assert oldest_open(storage._context.layout) is None
    assert not list((directory / "sessions").glob("publication-*"))


def test_setting_the_clock_back_does_not_repeat_a_number(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now, expected in ((2_000_000_000, 2_000_000_000), (1_000_000_000, 2_000_000_001)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        publish_blocks(storage, b"%d" % expected, owner=None)
        storage.collect_garbage(grace_seconds=DAY)
        with storage.publish():
            assert oldest_open(storage._context.layout) == expected


class BusyDisk(Disk):
    """A disk that calls a function once while gc marks: when gc opens the first pack."""

    def __init__(self) -> None:
        self.interruption: Callable[[], object] | None = None

    def open_to_read(self, path: Path | str) -> int:
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()
        return super().open_to_read(path)


@pytest.mark.parametrize("by", ["pin", "ref", "publication"])
def test_what_gets_a_name_while_gc_marks_stays(directory: Path, by: str) -> None:
    disk = BusyDisk()
    with open_local_storage(directory, disk=disk) as storage, open_local_storage(directory) as other:
        node = encode_dagcbor({"large": os.urandom(70_000)})  # too large to be inline
        root = CID.of(node, DAG_CBOR)
        with storage.publish() as publication:
            publication.put(root, node)
            publication.commit(Changes(pins=[Pin(USER, root)]))
        [garbage] = publish_blocks(storage, b"just named", owner=None)

        def name() -> None:
            if by == "pin":
                other.pins.add(Pin("late", garbage))
            elif by == "ref":
                other.refs.set("late", garbage, expected_version=0)
            else:
                with other.publish() as publication:
                    publication.commit(Changes(pins=[Pin("late", garbage)]))

        disk.interruption = name
        storage.collect_garbage()
        assert disk.interruption is None, "the gc has read no pack, so it was not interrupted"
        assert storage.blocks.get(garbage) == b"just named"
        assert storage.blocks.has(root)
        assert count_marked(directory) == 0, "a file marked deletable before gc read the new name must be in use again"
        check_sound(storage)


def test_gc_leaves_nothing_of_the_barrier_behind(storage: LocalStorage, directory: Path) -> None:
    storage.collect_garbage()
    with sqlite3.connect(directory / "store.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'named%'").fetchall() == []


def test_a_pack_that_is_mostly_garbage_is_rewritten(storage: LocalStorage) -> None:
    cids = publish_pack(storage, 400)
    node, record = encode_node([], b"\x08\x01" + b"n" * 50), encode_dagcbor({"a": b"r" * 70_000})
    others = [(CID.of(node, DAG_PB, version=0), node), (CID.of(record, DAG_CBOR), record)]
    with storage.publish() as publication:
        for index in range(400):
            publication.put(*raw(b"x" + index.to_bytes(4, "big") * 250))
        for cid, data in others:
            publication.put(cid, data)
        publication.commit(Changes(pins=[Pin(USER, cid) for cid, _ in others]))
    for cid in cids[100:]:
        storage.pins.remove(cid)
    before = files_of(storage)
    plan = storage.collect_garbage(dry_run=True)
    report = storage.collect_garbage()
    assert (report.removed_blocks, report.freed_bytes) == (plan.removed_blocks, plan.freed_bytes)
    assert report.removed_blocks == 300 + 400
    after = files_of(storage)
    assert len(after) == 2
    assert not set(before) & set(after)
    kept: set[CID] = set()
    for path in after:
        with (storage.directory / path).open("rb") as file:
            kept.update(cid for cid, _ in CarReader(file))
    assert kept == set(cids[:100]) | {cid for cid, _ in others}, "with the codecs that they had"
    check_sound(storage)
    assert storage.collect_garbage().removed_blocks == 0


def test_a_pack_with_a_damaged_block_stays(storage: LocalStorage) -> None:
    cids = publish_pack(storage, 100)
    for cid in cids[10:]:
        storage.pins.remove(cid)
    [name] = files_of(storage)
    path = storage.directory / name
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    where = data.index((3).to_bytes(4, "big") * 250)
    data[where] ^= 1
    path.write_bytes(data)
    storage.collect_garbage()
    assert path.exists()
    for number, cid in enumerate(cids[:10]):
        if number != 3:
            assert storage.blocks.get(cid)


def test_a_gc_leaves_no_file_open(storage: LocalStorage) -> None:
    leaf = CID.of(b"leaf")
    records = [encode_dagcbor({"leaf": leaf, "filling": b"%d" % number * 1000}) for number in range(100)]
    with storage.publish() as publication:
        publication.put(leaf, b"leaf")
        for record in records:  # too many to be inline
            publication.put(CID.of(record, DAG_CBOR), record)
        publication.commit(Changes(pins=[Pin(USER, CID.of(record, DAG_CBOR)) for record in records]))
    assert files_of(storage)
    before = len(os.listdir("/proc/self/fd"))
    assert storage.collect_garbage().kept_blocks == 101
    assert len(os.listdir("/proc/self/fd")) == before
