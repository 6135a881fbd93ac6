"""Backups of whole stores, made in one call, and participants that disturb them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_ipfs.content.storage.local.backup.snapshot import NullParticipant
from mlflow_ipfs.content.storage.local.backup.store_copy import BackupReport, install, remove_unnamed
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter
from mlflow_ipfs.content.system.disk import Disk
from support.storages import publish_blocks, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local import LocalStorage
    from mlflow_ipfs.content.storage.local.backup.snapshot import Participant


def back_up(
    storage: LocalStorage,
    target: Path,
    participant: Participant | None = None,
    *,
    verify: bool = True,
    disk: Disk | None = None,
) -> BackupReport:
    """Make a backup that replaces the previous one."""
    disk, work = disk or Disk(), target.with_name("work")
    disk.remove_tree(work)
    report = storage.back_up(BackupWriter(disk, target, work), participant or NullParticipant(), verify=verify)
    install(disk, target, work / INDEX, storage.store_id)
    remove_unnamed(disk, target)
    return report


@dataclass
class Hook(NullParticipant):
    """Participant that runs an action between the snapshot and the time when its files are safe."""

    action: Callable[[], object]
    calls: int = 0

    def copy_during_snapshot(self) -> None:
        self.calls += 1
        self.action()


def publish_pack(storage: LocalStorage) -> list[CID]:
    """Publish enough blocks for a pack, each pinned."""
    return publish_blocks(storage, *(os.urandom(3000) for _ in range(40)))


def file_with(storage: LocalStorage, cid: CID) -> Path:
    """Return the path of the file that contains a block."""
    query = f"SELECT p.name FROM place p JOIN block b ON b.place = p.id WHERE b.multihash = x'{cid.multihash.hex()}'"
    [(name,)] = rows_of(storage, query)
    return storage.directory / str(name)


def flip_byte(path: Path, offset: int = 100) -> None:
    """Damage a file without changing its size and time."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def flip_bytes_of(store: Path, needle: bytes) -> None:
    """Damage the one file of the store that contains some bytes, without changing its size and time."""
    (path,) = (path for path in (store / "files").rglob("*") if path.is_file() and needle in path.read_bytes())
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
