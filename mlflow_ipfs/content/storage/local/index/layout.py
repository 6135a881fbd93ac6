"""Where things lie in a store's directory, and how the directory is made and recognised."""

from __future__ import annotations

import json
import os
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.system import mounts
from mlflow_ipfs.content.system.disk import is_draft_of
from mlflow_ipfs.content.system.ownership import create_file
from mlflow_ipfs.errors import StoreFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.system.disk import Disk

RESERVE_BYTES: Final = 4 << 20
_ROOM_BYTES: Final = 4 * RESERVE_BYTES  # with less than this left, the reserve isn't made anew


def free_reserve(layout: Layout, disk: Disk) -> bool:
    """Give the reserve's room back to the disk. Returns whether there was any."""
    if not layout.reserve.exists():
        return False
    disk.remove(layout.reserve)
    return True


def is_nearly_full(layout: Layout, disk: Disk) -> bool:
    """Tell whether work that needs a little room had better free the reserve first."""
    return disk.free_bytes(layout.directory) < RESERVE_BYTES


def make_reserve(layout: Layout, disk: Disk) -> None:
    """Set the reserve aside if it isn't there and the disk has room. Never fails."""
    with suppress(OSError):
        if not layout.reserve.exists() and disk.free_bytes(layout.directory) > _ROOM_BYTES:
            _allocate(layout, disk)


def _allocate(layout: Layout, disk: Disk) -> None:
    try:
        disk.allocate(layout.reserve, RESERVE_BYTES)
    except FileExistsError:  # another process was faster
        return
    except OSError:
        disk.remove(layout.reserve)
        raise


FORMAT: Final = 1
_SQLITE_SUFFIXES: Final = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store.

    ::

        format.json   store.db (+ -wal, -shm: SQLite's)   reserve
        files/00..ff  immutable files: objects and packs
        tmp/<session>/  views/<session>/  sessions/<uuid>
        write.lock  publish.lock  gc.lock  cache.lock  outbox.lock  quarantine/  backup/
    """

    directory: Path

    @property
    def format_file(self) -> Path:
        """Says which versions of the program may open the store; written last of all."""
        return self.directory / "format.json"

    @property
    def database(self) -> Path:
        """The only truth about what exists."""
        return self.directory / "store.db"

    @property
    def log(self) -> Path:
        """SQLite's write-ahead log."""
        return self.directory / "store.db-wal"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files that SQLite keeps beside the index."""
        return tuple(self.database.with_name(f"{self.database.name}{suffix}") for suffix in _SQLITE_SUFFIXES)

    @property
    def reserve(self) -> Path:
        """Room that is freed when the disk is full."""
        return self.directory / "reserve"

    @property
    def files(self) -> Path:
        """Parent of the directories ``00`` to ``ff`` with the immutable files, each made when first needed."""
        return self.directory / "files"

    @property
    def tmp(self) -> Path:
        """Drafts, in one directory for each session."""
        return self.directory / "tmp"

    @property
    def views(self) -> Path:
        """Private trees that callers may write into, in one directory for each session."""
        return self.directory / "views"

    @property
    def sessions(self) -> Path:
        """One locked file for each session."""
        return self.directory / "sessions"

    @property
    def quarantine(self) -> Path:
        """Damaged objects, and indexes that a rebuild has replaced."""
        return self.directory / "quarantine"

    @property
    def backup(self) -> Path:
        """Copies of ``store.db``."""
        return self.directory / "backup"

    @property
    def write_lock(self) -> Path:
        """Held for every commit and checkpoint of SQLite, and while the store is made."""
        return self.directory / "write.lock"

    @property
    def gc_lock(self) -> Path:
        """Held by the one gc that runs."""
        return self.directory / "gc.lock"

    @property
    def publish_lock(self) -> Path:
        """Shared by publications; held exclusively by a rebuild, which must not adopt files that a publication may remove."""
        return self.directory / "publish.lock"

    @property
    def cache_lock(self) -> Path:
        """Held by the one process that puts a file together for the cache."""
        return self.directory / "cache.lock"

    @property
    def outbox_lock(self) -> Path:
        """Held by the one process that sends what waits in the outbox."""
        return self.directory / "outbox.lock"

    @property
    def directories(self) -> tuple[Path, ...]:
        """All the directories of a store."""
        return (self.files, self.tmp, self.views, self.sessions, self.quarantine, self.backup)

    @property
    def locks(self) -> tuple[Path, ...]:
        """All the lock files of a store, without those of its sessions."""
        return (self.write_lock, self.publish_lock, self.gc_lock, self.cache_lock, self.outbox_lock)

    def is_own(self, name: str) -> bool:
        """Tell whether a store makes something of this name in its directory; anything else is a stranger's."""
        index = (self.database, *self.logs)
        own = {path.name for path in (self.format_file, self.reserve, *self.directories, *self.locks, *index)}
        return name in own or is_draft_of(self.format_file.name, name)

    def make_directories(self, disk: Disk) -> None:
        """Make the directories that aren't there: all of a new store's, or what somebody has cleared away."""
        for directory in self.directories:
            disk.make_directory(directory)
        for lock in (self.publish_lock, self.cache_lock):
            make_lock_file(lock)

    def make_all(self, disk: Disk) -> None:
        """Make what isn't there yet, durably, except the database and ``format.json``."""
        self.make_directories(disk)
        for lock in (self.gc_lock, self.outbox_lock):
            make_lock_file(lock)
        disk.sync_directory(self.directory)


def make_lock_file(path: Path) -> None:
    """Make an empty file unless it is there."""
    with suppress(FileExistsError):
        os.close(create_file(path, os.O_RDWR))


def check_platform(directory: Path) -> None:
    """Refuse systems and file systems on which the store would lose data silently.

    Args:
        directory: the existing directory that holds, or will hold, the store; resolved.

    Raises:
        StoreFormatError: Windows, or a network file system.
    """
    if sys.platform == "win32":
        msg = "a local store needs flock and POSIX files, which Windows does not have: use it under WSL2"
        raise StoreFormatError(msg)
    kind = mounts.file_system_type(directory)
    if kind is not None and mounts.is_network_file_system(kind):
        msg = (
            f"{directory} is on a network file system ({kind}), where locks and SQLite's log fail silently. "
            "Use a directory on a disk of this machine (MLFLOW_IPFS_STORE), and share it between machines through "
            "an MLflow server"
        )
        raise StoreFormatError(msg)


def is_store(layout: Layout) -> bool:
    """Tell whether the directory holds a store that was made to the end."""
    return layout.format_file.exists()


def check_may_create(layout: Layout) -> None:
    """Refuse a directory that holds something else. One whose making was interrupted may be made again.

    Raises:
        StoreFormatError: it does.
    """
    names = os.listdir(layout.directory)  # one look: another process may be making the store
    if names and layout.write_lock.name not in names:
        msg = f"{layout.directory} is not a store and not empty: name an empty or a new directory"
        raise StoreFormatError(msg)


def write_format(layout: Layout, disk: Disk, store_id: str) -> None:
    """Declare the store made."""
    fields = {"format": FORMAT, "min_reader": FORMAT, "min_writer": FORMAT, "store_id": store_id}
    disk.write_file(layout.format_file, (json.dumps(fields, indent=2) + "\n").encode())


def new_store_id() -> str:
    """An id that no other store has."""
    return str(uuid.uuid4())


def read_format(layout: Layout) -> str:
    """Check that this version may open the store.

    Returns:
        The store's id.

    Raises:
        StoreFormatError: it may not, or ``format.json`` is unreadable.
    """
    try:
        fields: dict[str, Any] = json.loads(layout.format_file.read_bytes())
        needed, store_id = max(int(fields["min_reader"]), int(fields["min_writer"])), str(fields["store_id"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{layout.format_file} does not describe a store ({error!r})"
        raise StoreFormatError(msg) from error
    if needed > FORMAT:
        msg = (
            f"the store {layout.directory} has format {fields.get('format')} and needs a program that knows format {needed}; "
            f"this one knows {FORMAT}: upgrade mlflow-ipfs"
        )
        raise StoreFormatError(msg)
    return store_id
