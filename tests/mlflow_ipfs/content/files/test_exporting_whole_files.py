"""Files that the store keeps whole are exported by copying them: their bytes only, and only if they are sound."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.files import file_exporter
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.file_copy import copy_bytes
from mlflow_ipfs.errors import IntegrityError, StoreFullError
from support.mounted import mounted_tmpfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from support.unprivileged import OrdinaryUser

DATA = random.Random(5).randbytes((9 << 20) + 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with ContentStore(open_local_storage(tmp_path / "store")) as opened:
        yield opened


def add(store: ContentStore, directory: Path, **options: Any) -> tuple[CID, Path]:
    """Add a large file. Its CID, and where the store keeps it."""
    (directory / "source").write_bytes(DATA)
    cid = store.add(directory / "source", **options).cid
    whole = store.local_path(cid)
    assert whole is not None
    return cid, whole


@pytest.fixture
def no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is read block by block is an error."""

    def refuse(*_: Any) -> Any:
        pytest.fail("the file was read block by block")

    monkeypatch.setattr(file_exporter, "UnixFSFile", refuse)


def damage(whole: Path, *, keep_stamp: bool) -> None:
    status = whole.stat()
    whole.chmod(0o644)
    with whole.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"rot")
    whole.chmod(0o444)
    if keep_stamp:
        os.utime(whole, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("no_blocks")
def test_it_is_a_copy_with_an_inode_of_its_own(store: ContentStore, tmp_path: Path) -> None:
    cid, whole = add(store, tmp_path)
    steps: list[int] = []
    out = store.view(cid, dst=tmp_path / "out", progress=steps.append)
    assert out.read_bytes() == DATA
    assert not out.samefile(whole)
    assert out.stat().st_nlink == whole.stat().st_nlink == 1
    assert sum(steps) == len(DATA)
    assert len(steps) > 1, "a long copy tells how far it is"
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask, "a file as any program of the user makes it"
    out.write_bytes(b"mine now")
    assert store.verify(cid).ok


@pytest.mark.usefixtures("no_blocks")
def test_modes_and_times_are_set_on_the_copy(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    (tmp_path / "source").chmod(0o750)
    os.utime(tmp_path / "source", ns=(5, 5))
    cid = store.add(tmp_path / "source", preserve_mode=True, preserve_mtime=True).cid
    whole = store.local_path(cid)
    assert whole is not None
    before = whole.stat()
    for out in (store.view(cid, dst=tmp_path / "out"), store.view(cid)):
        assert (out.stat().st_mode & 0o777, out.stat().st_mtime_ns) == (0o750, 5)
        assert out.read_bytes() == DATA
        assert not out.samefile(whole)
    after = whole.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def export_as_a_user(directory: Path) -> tuple[bool, int]:
    with ContentStore(open_local_storage(directory / "store")) as store:
        cid, whole = add(store, directory)
        out, view = store.view(cid, dst=directory / "out"), store.view(cid)
        assert out.read_bytes() == view.read_bytes() == DATA
        return out.samefile(whole) or out.samefile(view), whole.stat().st_mode & 0o777


def test_what_goes_to_a_place_of_the_users_own_is_never_linked(ordinary_user: OrdinaryUser) -> None:
    """Root's views are copies anyway; an ordinary user's are links where there are no reflinks."""
    assert ordinary_user.run(export_as_a_user, ordinary_user.directory) == (False, 0o444)


def test_a_changed_stamp_means_hashing_and_damage_is_refused(store: ContentStore, tmp_path: Path) -> None:
    cid, whole = add(store, tmp_path)
    damage(whole, keep_stamp=False)
    with pytest.raises(IntegrityError, match=str(cid)):
        store.view(cid, dst=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store"]
    assert list((tmp_path / "store" / "quarantine").iterdir())


@pytest.mark.usefixtures("no_blocks")
def test_a_changed_stamp_without_damage_is_copied(store: ContentStore, tmp_path: Path) -> None:
    cid, whole = add(store, tmp_path)
    os.utime(whole)
    assert store.view(cid, dst=tmp_path / "out").read_bytes() == DATA


def test_damage_behind_an_unchanged_stamp_is_refused_if_everything_is_to_be_verified(tmp_path: Path) -> None:
    with ContentStore(open_local_storage(tmp_path / "store", verify_always=True)) as store:
        cid, whole = add(store, tmp_path)
        damage(whole, keep_stamp=True)
        with pytest.raises(IntegrityError, match=str(cid)):
            store.view(cid, dst=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone_in_the_last_moment_is_read_by_blocks(
    store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid, _ = add(store, tmp_path)
    monkeypatch.setattr(LocalStorage, "file_path", lambda *_: tmp_path / "gone")
    assert store.view(cid, dst=tmp_path / "out").read_bytes() == DATA


def test_a_file_that_changes_during_the_copy_is_not_placed(
    store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid, whole = add(store, tmp_path)

    def copy_and_change(source: int, destination: int, progress: Callable[[int], None]) -> int:
        copied = copy_bytes(source, destination, progress)
        damage(whole, keep_stamp=False)
        return copied

    monkeypatch.setattr(file_exporter, "copy_bytes", copy_and_change)
    with pytest.raises(IntegrityError, match="changed while it was copied"):
        store.view(cid, dst=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store"]


def test_a_full_disk_is_refused_before_and_during_the_copy(
    store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid, _ = add(store, tmp_path)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=4 << 20) as disk:
        with pytest.raises(StoreFullError, match="bytes free"):
            store.view(cid, dst=disk.directory / "out")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: _Free(1 << 30))
        with pytest.raises(StoreFullError, match="no space left on the disk of"):
            store.view(cid, dst=disk.directory / "out")
        assert list(disk.directory.iterdir()) == []


class _Free:
    """What ``shutil.disk_usage`` says of a disk that others are filling."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_how_a_file_was_written_is_logged(
    store: ContentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large, _ = add(store, tmp_path)
    small = store.add_bytes(b"small")
    with caplog.at_level(logging.DEBUG, "mlflow_ipfs.content"):
        for cid, dst, how in (
            (large, tmp_path / "out", f"{large}: copying the file "),
            (large, None, r"mlflow_ipfs\.content\.storage\.local\.files\.views"),
            (small, tmp_path / "small", f"{small}: wrote block by block, each verified"),
        ):
            caplog.clear()
            store.view(cid, dst=dst)
            assert caplog.messages[0].startswith(f"{cid}: writing to ")
            assert re.search(how, caplog.text), caplog.text
