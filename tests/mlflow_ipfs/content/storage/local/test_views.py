"""Views share bytes with the store only where writing to the one cannot reach the other."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.system.disk import Disk
from support.mounted import mounted_tmpfs
from support.storages import publish_file

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage
    from mlflow_ipfs.content.storage.local.files.views import ViewMode
    from support.unprivileged import OrdinaryUser

DATA = b"view" * 50_000


class RecordingDisk(Disk):
    """Remembers how files were placed, and can refuse a way with an error number."""

    def __init__(self, **refused: int) -> None:
        self.ways: list[str] = []
        self._refused = refused

    def _record(self, way: str) -> None:
        self.ways.append(way)
        if way in self._refused:
            number = self._refused[way]
            raise OSError(number, os.strerror(number))

    def clone(self, source: Path, destination: Path) -> None:
        self._record("clone")
        super().clone(source, destination)

    def link(self, source: Path, destination: Path) -> None:
        self._record("link")
        super().link(source, destination)

    def copy(self, source: Path, destination: Path) -> None:
        self._record("copy")
        super().copy(source, destination)


def place(directory: Path, mode: ViewMode, disk: RecordingDisk, data: bytes = DATA) -> dict[str, object]:
    """Place a file in a view and write to it if possible. What happened, in plain values."""
    with open_local_storage(directory, disk=disk, view_mode=mode) as storage:
        root = publish_file(storage, data, leaf_bytes=100_000)
        path = storage.file_path(root)
        assert path is not None
        target = storage.make_view_directory() / "file"
        storage.link_file(path, target)
        assert target.read_bytes() == data
        result: dict[str, object] = {
            "ways": disk.ways,
            "mode": target.stat().st_mode & 0o777,
            "same": target.samefile(path),
        }
        if not result["same"]:
            with target.open("r+b") as file:
                file.write(b"changed")
        assert path.read_bytes() == data
        assert storage.file_path(root) == path
        assert path.stat().st_mode & 0o777 == 0o444
    return result


@pytest.mark.parametrize("mode", ["auto", "reflink", "hardlink", "copy"])
def test_whatever_the_mode_root_never_gets_a_hard_link(
    directory: Path, mode: ViewMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    disk = RecordingDisk()
    result = place(directory, mode, disk)
    assert "link" not in disk.ways
    assert result["same"] is False
    assert result["mode"] == 0o644


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.EPERM])
def test_an_ordinary_user_without_reflinks_gets_a_hard_link(ordinary_user: OrdinaryUser, number: int) -> None:
    result = ordinary_user.run(place, ordinary_user.directory / "store", "auto", RecordingDisk(clone=number))
    assert result == {"ways": ["clone", "link"], "mode": 0o444, "same": True}


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_without_links_it_is_copied(ordinary_user: OrdinaryUser, number: int) -> None:
    disk = RecordingDisk(clone=errno.EOPNOTSUPP, link=number)
    result = ordinary_user.run(place, ordinary_user.directory / "store", "auto", disk)
    assert result == {"ways": ["clone", "link", "copy"], "mode": 0o644, "same": False}


def test_copy_means_copy(ordinary_user: OrdinaryUser) -> None:
    result = ordinary_user.run(place, ordinary_user.directory / "store", "copy", RecordingDisk())
    assert result == {"ways": ["copy"], "mode": 0o644, "same": False}


def test_small_files_are_always_copied(ordinary_user: OrdinaryUser) -> None:
    result = ordinary_user.run(place, ordinary_user.directory / "store", "auto", RecordingDisk(), b"small" * 100)
    assert result == {"ways": ["copy"], "mode": 0o644, "same": False}


def test_an_error_that_is_not_about_sharing_is_raised(storage: LocalStorage, tmp_path: Path) -> None:
    root = publish_file(storage, DATA, leaf_bytes=100_000)
    path = storage.file_path(root)
    assert path is not None
    with pytest.raises(FileNotFoundError):
        storage.link_file(path, tmp_path / "no such directory" / "file")


def test_what_goes_to_another_disk_is_copied(storage: LocalStorage, tmp_path: Path) -> None:
    root = publish_file(storage, DATA, leaf_bytes=100_000)
    path = storage.file_path(root)
    assert path is not None
    with mounted_tmpfs(tmp_path / "disk", size_bytes=4 << 20) as disk:
        other = disk.directory / "elsewhere"
        storage.link_file(path, other)
        assert other.read_bytes() == DATA
        assert not other.samefile(path)
