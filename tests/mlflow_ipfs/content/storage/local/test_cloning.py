"""Copies of a whole store: one moment, whoever writes and collects meanwhile, and only what is new."""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.backup.snapshot import NullParticipant
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import StoreBusyError
from support.clones import Hook, back_up, publish_pack
from support.storages import check_sound, files_of, leftovers, multihashes, publish_blocks, publish_file, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage


def test_a_copy_is_the_same_store(storage: LocalStorage, target: Path) -> None:
    root = publish_file(storage, os.urandom(50_000))
    [inline] = publish_blocks(storage, b"inline", owner="me")
    cids = publish_pack(storage)
    storage.refs.set("name", root, expected_version=0)
    with storage.publish() as publication:
        publication.commit(Changes(entries=[MfsEntry("mlflow", "a/b.bin", root, 50_000, 50_000, 0)]))
    report = back_up(storage, target)
    assert (report.files, report.copied_files, report.problems) == (2, 2, ())
    assert report.hashed_blocks == len(list(multihashes(storage)))
    assert leftovers(storage.directory) == []
    with open_local_storage(target, create=False) as copy:
        assert copy.store_id == storage.store_id
        assert {(pin.owner, pin.cid) for pin in copy.pins.list()} == {(p.owner, p.cid) for p in storage.pins.list()}
        assert copy.refs.get("name").cid == root
        assert [entry.path for entry in copy.entries.walk("mlflow", "")] == ["a/b.bin"]
        assert copy.blocks.get(inline) == b"inline"
        assert all(cid.matches(copy.blocks.get(cid)) for cid in cids)
        check_sound(copy)
        assert copy.scrub().problems == ()


def test_a_copied_file_has_its_own_stamp_in_the_index(storage: LocalStorage, target: Path) -> None:
    root = publish_file(storage, os.urandom(50_000))
    back_up(storage, target)

    with open_local_storage(target, create=False) as copy:
        path = copy.file_path(root)
        assert path is not None
        status = path.stat()
        assert rows_of(copy, "SELECT inode, mtime_ns FROM place") == [(status.st_ino, status.st_mtime_ns)]
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.stat().st_nlink == 1


def test_only_new_files_are_copied_and_needless_ones_removed(storage: LocalStorage, target: Path) -> None:
    kept, dropped = publish_file(storage, os.urandom(50_000)), publish_file(storage, os.urandom(60_000), owner="gone")
    back_up(storage, target)
    with open_local_storage(target, create=False) as copy:
        path = copy.file_path(kept)
    assert path is not None
    inode = path.stat().st_ino
    storage.pins.remove(dropped, "gone")
    storage.collect_garbage()
    publish_file(storage, os.urandom(70_000))
    report = back_up(storage, target)
    assert (report.files, report.copied_files, report.copied_bytes) == (2, 1, 70_000)
    assert path.stat().st_ino == inode
    with open_local_storage(target, create=False) as copy:
        assert files_of(copy) == files_of(storage)
        check_sound(copy)
    assert back_up(storage, target).copied_files == 0


@pytest.mark.slow
def test_what_goes_after_the_moment_is_in_the_copy(storage: LocalStorage, directory: Path, target: Path) -> None:
    root, cids = publish_file(storage, os.urandom(50_000)), publish_pack(storage)

    def drop_all() -> None:
        with open_local_storage(directory) as other:
            for pin in list(other.pins.list()):
                other.pins.remove(pin.cid, pin.owner)
            other.collect_garbage()

    hook = Hook(drop_all)
    assert back_up(storage, target, hook).problems == ()
    assert hook.calls == 1
    storage.collect_garbage()
    assert files_of(storage) == set()
    with open_local_storage(target, create=False) as copy:
        check_sound(copy)
        assert copy.file_path(root) is not None
        assert len(list(copy.pins.list())) == 1 + len(cids)


def test_a_file_that_a_running_gc_still_deletes_means_another_moment(storage: LocalStorage, target: Path) -> None:
    root = publish_file(storage, os.urandom(50_000), owner="gone")
    publish_file(storage, os.urandom(60_000))

    def finish_gc() -> None:
        if hook.calls == 1:
            path = storage.file_path(root)
            assert path is not None
            storage.pins.remove(root, "gone")
            with storage._context.database.write() as connection:
                connection.execute("UPDATE place SET condemned_at = -1 WHERE root = ?", (root.multihash,))
            path.unlink()

    hook = Hook(finish_gc)
    assert back_up(storage, target, hook).problems == ()
    assert hook.calls == 2
    with open_local_storage(target, create=False) as copy:
        assert rows_of(copy, "SELECT count(*) FROM place") == [(1,)]  # what is being deleted was left out
        check_sound(copy)


def test_files_that_go_each_time_are_no_endless_work(storage: LocalStorage, target: Path) -> None:
    publish_file(storage, os.urandom(5_000))

    def delete_one_more() -> None:
        with storage._context.database.write() as connection:
            connection.execute("UPDATE place SET condemned_at = -1")
        for name in files_of(storage):
            (storage.directory / name).unlink()
        publish_file(storage, os.urandom(5_000))

    hook = Hook(delete_one_more)
    with pytest.raises(StoreBusyError, match="deleted during each of 5 attempts"):
        back_up(storage, target, hook)
    assert hook.calls == 5
    assert leftovers(storage.directory) == []


@dataclass
class Ledger(NullParticipant):
    """A database beside the store: it names a CID only after the store has it, and forgets it before the store does."""

    names: set[CID] = field(default_factory=set)
    copied: set[CID] = field(default_factory=set)

    def begin(self) -> None:
        self.copied = set(self.names)


@dataclass
class Traffic:
    """Publishers that also delete, and a gc without grace, until they are told to stop."""

    directory: Path
    ledger: Ledger = field(default_factory=Ledger)
    stop: threading.Event = field(default_factory=threading.Event)

    def publish(self, number: int) -> None:
        mine: list[tuple[str, CID]] = []
        with open_local_storage(self.directory) as storage:
            for count in itertools.count():
                owner = f"{number}-{count}"
                cid = publish_file(storage, os.urandom((200, 30_000)[count % 2]), owner=owner)
                self.ledger.names.add(cid)
                mine.append((owner, cid))
                if len(mine) > 3:
                    owner, cid = mine.pop(0)
                    self.ledger.names.discard(cid)
                    storage.pins.remove(cid, owner)
                if self.stop.is_set():
                    return

    def collect(self) -> None:
        with open_local_storage(self.directory) as storage:
            while not self.stop.is_set():
                storage.collect_garbage()


@pytest.mark.slow
def test_store_and_companion_show_one_moment_while_both_change(directory: Path, target: Path) -> None:
    with open_local_storage(directory) as storage, ThreadPoolExecutor(3) as pool:
        traffic = Traffic(directory)
        work = [pool.submit(traffic.publish, 1), pool.submit(traffic.publish, 2), pool.submit(traffic.collect)]
        seen: set[CID] = set()
        copies = 0
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end or not seen:
                copies += 1
                assert back_up(storage, target, traffic.ledger).problems == ()
                with open_local_storage(target, create=False) as copy:
                    check_sound(copy)
                    assert traffic.ledger.copied <= {pin.cid for pin in copy.pins.list()}
                seen |= traffic.ledger.copied
        finally:
            traffic.stop.set()
        for future in work:
            future.result()
    assert copies > 2
    assert len(seen) > 10, "hardly anything went on: this test shows nothing"


def test_a_locked_companion_is_tried_again_and_nobody_waits_for_long(directory: Path, target: Path) -> None:
    with open_local_storage(directory, timeout_seconds=5) as storage:
        publish_file(storage, os.urandom(5_000))

        class Busy(NullParticipant):
            tries = 0
            ended = 0

            def begin(self) -> None:
                self.tries += 1
                if self.tries < 3:
                    raise StoreBusyError("locked")

            def end(self) -> None:
                self.ended += 1

        busy = Busy()
        assert back_up(storage, target, busy).copied_files == 1
        assert (busy.tries, busy.ended) == (3, 3)


def test_a_companion_that_stays_locked_ends_in_an_error(storage: LocalStorage, target: Path) -> None:
    class Locked(NullParticipant):
        def begin(self) -> None:
            raise StoreBusyError("the database is locked by somebody")

    with pytest.raises(StoreBusyError, match="locked by somebody"):
        back_up(storage, target, Locked())
    publish_blocks(storage, b"the store goes on")


def test_a_copy_in_use_is_left_alone(storage: LocalStorage, target: Path) -> None:
    publish_file(storage, os.urandom(40_000))
    back_up(storage, target)
    with open_local_storage(target, create=False) as copy:
        copy.make_view_directory()
        with pytest.raises(StoreBusyError, match="in use as a store"):
            back_up(storage, target)


def test_a_store_without_links_is_copied_too(directory: Path, target: Path) -> None:
    class NoLinks(Disk):
        def link(self, source: Path, destination: Path) -> None:  # noqa: ARG002 - as Disk has it
            raise PermissionError(1, "Operation not permitted", str(destination))

    with open_local_storage(directory, disk=NoLinks()) as storage:
        publish_file(storage, os.urandom(40_000))
        assert back_up(storage, target).copied_files == 1
