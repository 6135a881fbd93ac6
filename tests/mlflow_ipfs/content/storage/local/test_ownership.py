"""Stores that several users of one machine use: root beside a service user, and the members of a group."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import PolicyError
from support.not_run import not_run
from support.storages import check_sound, publish_blocks, publish_file, put_file
from support.unprivileged import NOBODY, OrdinaryUser

if TYPE_CHECKING:
    from pathlib import Path

LARGE = b"large" * 2000
SMALL = b"small"
PACKED = [bytes([number]) * 5000 for number in range(20)]


@pytest.fixture
def root() -> None:
    """Root, which alone can leave files that another user cannot use."""
    if os.geteuid() != 0:
        not_run("only root makes files in a store that its owner cannot use")


def use(store: Path, letter: bytes) -> None:
    """Do what leaves every kind of file in a store: objects, packs, inline blocks, views, sessions, copies of the index."""
    with open_local_storage(store) as storage:
        publish_file(storage, LARGE + letter)
        publish_blocks(storage, SMALL + letter, *(block + letter for block in PACKED))
        storage.make_view_directory().joinpath("file").write_bytes(b"")
        storage.collect_garbage()


def owners_of(directory: Path) -> set[tuple[int, int]]:
    """Owner and group of all that is stored in a directory, except what callers write into views."""
    paths = [directory, *directory.rglob("*")]
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in paths if path.parent.parent.parent.name != "views"}


def modes_of(directory: Path) -> set[int]:
    """Modes of the directories in a directory."""
    return {stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*")) if path.is_dir()}


@pytest.mark.usefixtures("root")
def test_what_root_makes_in_a_store_belongs_to_its_owner(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"
    ordinary_user.run(use, store, b"1")
    use(store, b"2")
    assert owners_of(store) == {(NOBODY, NOBODY)}
    assert modes_of(store) == {0o700}
    ordinary_user.run(use, store, b"2")
    ordinary_user.run(use, store, b"3")


@pytest.mark.usefixtures("root")
def test_after_root_has_written_the_owner_reads_publishes_and_scrubs(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"
    ordinary_user.run(use, store, b"1")
    use(store, b"2")

    def work() -> int:
        with open_local_storage(store) as storage:
            check_sound(storage)
            with storage.publish() as publication:
                cid = put_file(publication, LARGE + b"3")
                publication.commit(Changes(pins=[Pin(USER, cid)]))
            storage.collect_garbage()
            return len(storage.scrub().problems)

    assert ordinary_user.run(work) == 0


@pytest.mark.usefixtures("root")
def test_a_directory_for_a_store_that_root_fills_belongs_to_who_owns_the_directory(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"
    ordinary_user.run(store.mkdir, 0o700)
    use(store, b"1")
    assert owners_of(store) == {(NOBODY, NOBODY)}
    ordinary_user.run(use, store, b"2")


@pytest.mark.usefixtures("root")
def test_a_store_that_root_makes_belongs_to_the_owner_of_the_directory_around(
    ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    store = ordinary_user.directory / "new" / "below" / "store"
    use(store, b"1")
    assert owners_of(ordinary_user.directory) == {(NOBODY, NOBODY)}
    use(tmp_path / "store", b"1")
    assert owners_of(tmp_path / "store") == {(0, 0)}


def test_a_store_that_its_group_may_write_to_is_shared(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"

    def share() -> tuple[set[int], set[int]]:
        os.umask(0o077)
        store.mkdir()
        store.chmod(0o2770)
        use(store, b"1")
        ours = [path for path in store.rglob("*") if path.is_file() and "views" not in path.parts]
        files = {stat.S_IMODE(path.stat().st_mode) for path in ours}
        return modes_of(store), files

    assert ordinary_user.run(share) == ({0o2770}, {0o660, 0o444})


@pytest.mark.usefixtures("root")
def test_the_members_of_a_group_share_a_store(ordinary_user: OrdinaryUser) -> None:
    store, group = ordinary_user.directory / "store", 54_321
    ordinary_user.directory.chmod(0o755)
    store.mkdir()
    os.chown(store, NOBODY, group)
    store.chmod(0o2770)

    def work(letter: bytes) -> None:
        os.umask(0o077)
        use(store, letter)
        with open_local_storage(store) as storage:
            check_sound(storage)
            assert not storage.scrub().problems

    for uid, letter in ((1001, b"1"), (1002, b"2"), (1001, b"3"), (NOBODY, b"4")):
        OrdinaryUser(store, uid, group).run(work, letter)
    use(store, b"5")
    OrdinaryUser(store, 1001, group).run(work, b"6")
    assert {gid for _, gid in owners_of(store)} == {group}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("mode", "is_allowed"), [(0o2770, True), (0o2750, False)])
def test_root_moves_files_between_directories_of_a_group(
    ordinary_user: OrdinaryUser, mode: int, *, is_allowed: bool
) -> None:
    directories = [ordinary_user.directory / name for name in ("one", "two")]
    for directory, uid in zip(directories, (1001, 1002), strict=True):
        directory.mkdir()
        os.chown(directory, uid, 54_321)
        directory.chmod(mode)
    (directories[0] / "file").touch()
    if is_allowed:
        Disk().rename(directories[0] / "file", directories[1] / "file")
        assert os.listdir(directories[1]) == ["file"]
    else:
        with pytest.raises(PolicyError, match="belongs to user 1002"):
            Disk().rename(directories[0] / "file", directories[1] / "file")


def test_a_directory_that_others_may_read_is_no_shared_one(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"

    def work() -> set[int]:
        os.umask(0)
        store.mkdir(mode=0o755)
        use(store, b"1")
        return {stat.S_IMODE(path.stat().st_mode) for path in store.iterdir()}

    assert ordinary_user.run(work) == {0o700, 0o600}


@pytest.mark.usefixtures("root")
def test_root_gives_nothing_away_through_a_link(ordinary_user: OrdinaryUser, tmp_path: Path) -> None:
    def make_link(link: Path) -> None:
        link.parent.mkdir()
        link.symlink_to(tmp_path)

    disk, link = Disk(), ordinary_user.directory / "store" / "link"
    ordinary_user.run(make_link, link)
    disk.close(disk.create(link / "file"))
    disk.make_directory(link / "directory")
    assert owners_of(tmp_path) == {(0, 0)}
    disk.close(disk.create(link.parent / "file"))
    for step in (disk.rename, disk.link):
        with pytest.raises(PolicyError, match="remove it if it is a symlink"):
            step(link.parent / "file", link / "moved")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


@pytest.mark.usefixtures("root")
def test_root_that_may_not_change_owners_leaves_nothing(
    ordinary_user: OrdinaryUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without CAP_CHOWN."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    disk = Disk()
    for create in (disk.create, disk.make_directory):
        with pytest.raises(PolicyError, match="new was not created: .*CAP_CHOWN"):
            create(ordinary_user.directory / "new")
    assert os.listdir(ordinary_user.directory) == []


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", ["files", "tmp", "views", "sessions", "quarantine", "backup"])
def test_root_follows_no_link_in_a_store_of_another_user(
    ordinary_user: OrdinaryUser, tmp_path: Path, name: str
) -> None:
    store = ordinary_user.directory / "store"
    ordinary_user.run(use, store, b"1")
    (tmp_path / "precious").touch()
    (store / name).rename(store.parent / "moved")
    (store / name).symlink_to(tmp_path)
    with pytest.raises(PolicyError, match=f"{name} is a symbolic link"):
        open_local_storage(store)
    assert os.listdir(tmp_path) == ["precious"]
