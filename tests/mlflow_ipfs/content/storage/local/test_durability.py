"""What survives a loss of power: ``kill -9`` cannot find a missing fsync, so the order of steps is watched."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import StoreFormatError
from support.storages import check_sound, files_of, leftovers, multihashes, publish_file, put_file, raw

if TYPE_CHECKING:
    import os
    from pathlib import Path


class WatchfulDisk(Disk):
    """Knows what would be lost with the power, and allows no commit that relies on it.

    Attributes:
        commits: how many commits found all that they rely on durable.
        renames: how many files were moved.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._paths: dict[int, Path] = {}
        self._unsynced_bytes: set[Path] = set()
        self._unsynced_names: dict[Path, set[str]] = {}
        self.commits = self.renames = 0

    def create(self, path: Path, mode: int | None = None) -> int:
        descriptor = super().create(path, mode)
        self._paths[descriptor] = path
        self._unsynced_bytes.add(path)
        return descriptor

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        self._unsynced_bytes.add(self._paths[descriptor])
        super().write(descriptor, data)

    def seal(self, descriptor: int) -> os.stat_result:
        self._unsynced_bytes.add(self._paths[descriptor])
        return super().seal(descriptor)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        path = self._paths.get(descriptor)
        if path is not None:
            self._unsynced_bytes.discard(path)

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        super().close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        assert source not in self._unsynced_bytes, f"{source} is moved before its bytes are durable"
        super().rename(source, destination)
        self._unsynced_names.setdefault(destination.parent, set()).add(destination.name)
        self.renames += 1
        if destination.name == "format.json":
            assert self._unsynced_names.pop(self._store) == {"format.json"}, "the store's parts come before its label"

    def make_directory(self, path: Path) -> None:
        if not path.exists():
            self._unsynced_names.setdefault(path.parent, set()).add(path.name)
        super().make_directory(path)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._unsynced_names.pop(path, None)

    def commit(self, connection: sqlite3.Connection) -> None:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'place'").fetchone()[0]
        if tables:
            for (name,) in connection.execute("SELECT name FROM place").fetchall():
                path = self._store / name
                assert path.exists()
                for part in (path, path.parent):
                    assert part.name not in self._unsynced_names.get(part.parent, ()), f"{part} may lose its name"
            self.commits += 1
        super().commit(connection)


class InterruptedDisk(Disk):
    """Commits, and then fails: nobody can say from the outside whether it was committed."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def commit(self, connection: sqlite3.Connection) -> None:
        super().commit(connection)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), sqlite3.OperationalError("disk I/O error")])
def test_a_commit_of_unknown_outcome_loses_no_file(directory: Path, error: BaseException) -> None:
    disk = InterruptedDisk()
    with open_local_storage(directory, disk=disk) as storage:
        disk.error = error
        with pytest.raises((KeyboardInterrupt, StoreFormatError)):
            publish_file(storage, b"x" * 5000)
        disk.error = None
        assert len(list(storage.pins.list())) == 1, "it was committed after all"
        check_sound(storage)
        assert not leftovers(directory)


class BrokenDisk(Disk):
    """Cannot commit: an I/O error, after which the change may still be in SQLite's log."""

    is_broken = False

    def commit(self, connection: sqlite3.Connection) -> None:
        if self.is_broken:
            msg = "disk I/O error"
            raise sqlite3.OperationalError(msg)
        super().commit(connection)


def test_files_stay_while_their_rows_may_come_back(directory: Path) -> None:
    disk = BrokenDisk()
    with open_local_storage(directory, disk=disk) as storage:
        disk.is_broken = True
        with pytest.raises(StoreFormatError, match="I/O error"):
            publish_file(storage, b"x" * 5000)
        disk.is_broken = False
        assert len(files_of(storage)) == 1
        assert list(multihashes(storage)) == []
        storage.collect_garbage()
        assert files_of(storage) == set()


def test_every_commit_relies_only_on_what_is_durable(directory: Path) -> None:
    disk = WatchfulDisk(directory)
    with open_local_storage(directory, disk=disk) as storage:
        for number in range(8):
            data = number.to_bytes(4, "big")
            with storage.publish() as publication:
                roots = [put_file(publication, data * count) for count in (1, 700, 1400)]
                for index in range(400):
                    publication.put(*raw(data + index.to_bytes(4, "big") * 250))
                publication.commit(Changes(pins=[Pin(USER, root) for root in roots]))
        storage.collect_garbage()
    assert (
        disk.renames == 1 + 8 * 4 + 8 + 1
    )  # gc moved what is pinned out of 8 packs that are mostly garbage, and made a backup
    assert disk.commits >= 8
