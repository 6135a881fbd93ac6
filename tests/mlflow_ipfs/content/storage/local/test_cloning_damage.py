"""Copies of a whole store when something is wrong: with the store, with the copy's disk, or with what lies there."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.backup.index_copy import copy_index, read_files
from mlflow_ipfs.content.storage.local.backup.snapshot import NullParticipant
from mlflow_ipfs.content.storage.local.backup.store_copy import copy_backup
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import IntegrityError, PolicyError, StoreFormatError, StoreFullError
from support.clones import back_up, file_with, flip_byte, publish_pack
from support.storages import FullDisk, check_sound, publish_file, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage


@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_block_is_named_and_the_rest_copied(storage: LocalStorage, target: Path, verify: bool) -> None:
    cids, root = publish_pack(storage), publish_file(storage, os.urandom(50_000))
    bad = cids[3]
    flip_byte(
        file_with(storage, bad),
        rows_of(storage, f"SELECT offset FROM block WHERE multihash = x'{bad.multihash.hex()}'")[0][0],
    )
    report = back_up(storage, target, verify=verify)
    assert [cid for cid, _ in report.problems] == ([bad] if verify else [])
    if not verify:
        return
    [(_, reason)] = report.problems
    assert str(storage.directory) in reason
    assert [cid for cid, _ in back_up(storage, target).problems] == [bad], "it is named until it is healed"
    with open_local_storage(target, create=False) as copy:
        assert copy.file_path(root) is not None
        assert all(cid.matches(copy.blocks.get(cid)) for cid in cids if cid != bad)
        with pytest.raises(IntegrityError):
            copy.blocks.get(bad)


def test_a_damaged_object_is_named_and_healed_by_adding_it_again(storage: LocalStorage, target: Path) -> None:
    data = os.urandom(50_000)
    root = publish_file(storage, data)
    path = storage.file_path(root)
    assert path is not None
    flip_byte(path)
    assert [cid for cid, _ in back_up(storage, target).problems] == [root]
    assert storage.scrub().problems != (), "the store knows of it now"
    publish_file(storage, data)
    report = back_up(storage, target)
    assert report.problems == ()
    with open_local_storage(target, create=False) as copy:
        found = copy.file_path(root)
        assert found is not None
        assert found.read_bytes() == data


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_that_the_store_has_lost_is_named(storage: LocalStorage, target: Path, verify: bool) -> None:
    root, other = publish_file(storage, os.urandom(50_000)), publish_file(storage, os.urandom(60_000))
    path = storage.file_path(root)
    assert path is not None
    path.unlink()
    report = back_up(storage, target, verify=verify)
    assert root in {cid for cid, _ in report.problems}
    with open_local_storage(target, create=False) as copy:
        assert copy.file_path(other) is not None


def test_a_copy_keeps_what_the_store_has_lost_since(storage: LocalStorage, target: Path) -> None:
    data = os.urandom(50_000)
    root = publish_file(storage, data)
    back_up(storage, target)
    path = storage.file_path(root)
    assert path is not None
    path.unlink()
    assert back_up(storage, target).problems == ()
    with open_local_storage(target, create=False) as copy:
        found = copy.file_path(root)
        assert found is not None
        assert found.read_bytes() == data


def test_damage_that_only_the_copy_has_is_told_apart_and_replaced(storage: LocalStorage, target: Path) -> None:
    """As when a disk has lost what an earlier, broken-off copy had written."""
    root = publish_file(storage, os.urandom(50_000))
    storage.back_up(BackupWriter(Disk(), target, target.with_name("work")), NullParticipant())
    [path] = target.glob("files/*/*")
    flip_byte(path)
    [(cid, reason)] = back_up(storage, target).problems
    assert cid == root
    assert "Only the copy is damaged" in reason
    assert storage.scrub().problems == ()
    assert back_up(storage, target).problems == ()
    with open_local_storage(target, create=False) as copy:
        assert copy.scrub().problems == ()


class DyingDisk(Disk):
    """A disk with one bad sector, whatever the name of the file that lies there."""

    bad: tuple[int, int] = 0, 0  # the file's inode, and an offset

    def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        inode, bad = self.bad
        if os.fstat(descriptor).st_ino == inode and offset <= bad < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read_at(descriptor, offset, length)


@pytest.mark.parametrize("verify", [True, False])
def test_a_bad_sector_costs_only_what_lies_there(directory: Path, target: Path, verify: bool) -> None:
    """The block is named, each time; its neighbours in the same pack, and all other files, are in the copy."""
    disk = DyingDisk()
    with open_local_storage(directory, disk=disk) as storage:
        cids, other = publish_pack(storage), publish_file(storage, os.urandom(50_000))
        pack = file_with(storage, cids[7])
        [(offset,)] = rows_of(storage, f"SELECT offset FROM block WHERE multihash = x'{cids[7].multihash.hex()}'")
        disk.bad = pack.stat().st_ino, offset + 1000
        near = [cid for cid in cids if cid not in damaged_by(storage, pack, offset + 1000)]
        for _ in range(2):
            report = back_up(storage, target, verify=verify, disk=disk)
            assert cids[7] in {cid for cid, _ in report.problems}
            assert {cid for cid, _ in report.problems}.isdisjoint({*near, other})
            assert all("Only the copy is damaged" not in reason or cid != cids[7] for cid, reason in report.problems)
            with open_local_storage(target, create=False) as copy:
                assert all(cid.matches(copy.blocks.get(cid)) for cid in near)
                assert copy.file_path(other) is not None
        disk.bad = 0, 0
        assert back_up(storage, target, verify=verify).problems == (), "the disk has come to itself"


def damaged_by(storage: LocalStorage, pack: Path, bad: int) -> set[CID]:
    """The blocks that lie in the page of a bad sector."""
    first = bad - bad % 4096
    query = "SELECT b.multihash, b.offset, b.length FROM block b JOIN place p ON p.id = b.place WHERE p.name = "
    rows = rows_of(storage, f"{query}'{pack.relative_to(storage.directory)}'")
    return {CID(1, 0x55, row[0]) for row in rows if row[1] < first + 4096 and first < row[1] + row[2]}


def test_a_file_with_a_bad_sector_is_named_and_the_others_copied(directory: Path, target: Path) -> None:
    disk = DyingDisk()
    with open_local_storage(directory, disk=disk) as storage:
        root, other = publish_file(storage, os.urandom(50_000)), publish_file(storage, os.urandom(60_000))
        path = storage.file_path(root)
        assert path is not None
        disk.bad = path.stat().st_ino, 30_000
        [(cid, reason)] = back_up(storage, target, disk=disk).problems
        assert cid == root
        assert str(storage.directory) in reason or "in the store" in reason
    with open_local_storage(target, create=False) as copy:
        assert copy.file_path(other) is not None
        with pytest.raises(IntegrityError):
            copy.file_path(root)


class ForgetfulDisk(Disk):
    """A disk that gives back other bytes than it was given, and says nothing."""

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        super().write(descriptor, bytes([data[0] ^ 1]) + bytes(data[1:]) if len(data) == 50_000 else data)


def test_a_bad_disk_under_the_copy_is_no_damage_of_the_store(storage: LocalStorage, target: Path) -> None:
    first = publish_file(storage, os.urandom(40_000))
    back_up(storage, target)
    publish_file(storage, os.urandom(50_000))
    with pytest.raises(IntegrityError, match="was not read back as it was written"):
        back_up(storage, target, disk=ForgetfulDisk())
    with open_local_storage(target, create=False) as copy:
        check_sound(copy)
        assert copy.file_path(first) is not None
    assert storage.scrub().problems == ()
    assert back_up(storage, target).problems == ()


def back_up_on(disk: Disk, storage: LocalStorage, target: Path) -> bool:
    """Returns whether there was room enough."""
    try:
        back_up(storage, target, disk=disk)
    except StoreFullError as error:
        return str(target.parent) not in str(error)
    return True


def test_a_full_disk_leaves_the_former_copy_whole(storage: LocalStorage, target: Path) -> None:
    first = publish_file(storage, os.urandom(40_000))
    back_up(storage, target)
    publish_file(storage, os.urandom(50_000))
    for room in itertools.count():
        disk = FullDisk(room)
        if back_up_on(disk, storage, target):
            break
        with open_local_storage(target, create=False) as copy:
            check_sound(copy)
            assert copy.file_path(first) is not None
    assert room > 5
    with open_local_storage(target, create=False) as copy:
        assert len(list(copy.pins.list())) == 2


def test_nothing_is_written_through_a_link(storage: LocalStorage, target: Path, tmp_path: Path) -> None:
    root = publish_file(storage, os.urandom(40_000))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (target / "files", target / "files" / f"{root.multihash[-1]:02x}"):
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(elsewhere)
        with pytest.raises(PolicyError, match="is a symbolic link or a file"):
            back_up(storage, target)
        place.unlink()
        assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "files/../../x", "/etc/passwd", "files/aa/..", "files/aa/b/c", "store.db"])
def test_a_copy_whose_index_leads_elsewhere_is_refused(
    storage: LocalStorage, target: Path, tmp_path: Path, name: str
) -> None:
    publish_file(storage, os.urandom(40_000))
    back_up(storage, target)
    with sqlite3.connect(target / INDEX) as connection:
        connection.execute("UPDATE place SET name = ?", (name,))
    connection.close()
    writer = BackupWriter(Disk(), tmp_path / "restored", tmp_path / "drafts")
    with pytest.raises(StoreFormatError, match="not a path that a store uses"):
        copy_backup(target, target / INDEX, writer, verify=True)


def test_a_copied_index_brings_no_code_along(storage: LocalStorage, target: Path, tmp_path: Path) -> None:
    publish_pack(storage)
    back_up(storage, target)
    with sqlite3.connect(target / INDEX) as connection:
        connection.execute("CREATE TRIGGER evil AFTER UPDATE ON place BEGIN DELETE FROM block; END")
        connection.execute('CREATE VIEW "a ""view""" AS SELECT 1')
    connection.close()
    copy_index(target / INDEX, tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall() == []
    connection.close()


def test_no_file_of_a_copy_stays_open(storage: LocalStorage, target: Path, tmp_path: Path) -> None:
    """Even if the index calls it cached: who reads such a file leases it."""
    publish_file(storage, os.urandom(40_000))
    back_up(storage, target)
    index = shutil.copyfile(target / INDEX, tmp_path / "copy.db")
    with closing(sqlite3.connect(index, isolation_level=None)) as connection:
        connection.execute("UPDATE place SET class = 'cache'")
    files = read_files(index)
    writer = BackupWriter(Disk(), tmp_path / "restored", tmp_path / "drafts")
    before = len(os.listdir("/proc/self/fd"))
    writer.write(index, files, {file.id: target / file.name for file in files}, verify=True)
    assert len(os.listdir("/proc/self/fd")) == before
