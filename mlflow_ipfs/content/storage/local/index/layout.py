"""Paths in a store's directory, and creation and recognition of the directory."""

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

FORMAT: Final = 1
RESERVE_BYTES: Final = 4 << 20
_MIN_FREE_BYTES: Final = 4 * RESERVE_BYTES  # with less free space, a used reserve is not allocated again
_SQLITE_SUFFIXES: Final = ("-wal", "-shm", "-journal")


def free_reserve(layout: Layout, disk: Disk) -> bool:
    """Free the disk space of the reserve. Return whether there was a reserve."""
    if not layout.reserve.exists():
        return False
    disk.remove(layout.reserve)
    return True


def is_nearly_full(layout: Layout, disk: Disk) -> bool:
    """Return whether an operation that needs a little space should free the reserve first."""
    return disk.free_bytes(layout.directory) < RESERVE_BYTES


def make_reserve(layout: Layout, disk: Disk) -> None:
    """Allocate the reserve if it is missing and the disk has enough space. Never raises OSError."""
    with suppress(OSError):
        if not layout.reserve.exists() and disk.free_bytes(layout.directory) > _MIN_FREE_BYTES:
            _allocate(layout, disk)


def _allocate(layout: Layout, disk: Disk) -> None:
    try:
        disk.allocate(layout.reserve, RESERVE_BYTES)
    except FileExistsError:  # another process allocated it first
        return
    except OSError:
        disk.remove(layout.reserve)
        raise


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
        """File with the versions that may open the store. Written as the last step of creation."""
        return self.directory / "format.json"

    @property
    def database(self) -> Path:
        """The index. Only its rows decide which files and blocks exist."""
        return self.directory / "store.db"

    @property
    def log(self) -> Path:
        """SQLite's write-ahead log."""
        return self.directory / "store.db-wal"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files that SQLite keeps next to the index."""
        return tuple(self.database.with_name(f"{self.database.name}{suffix}") for suffix in _SQLITE_SUFFIXES)

    @property
    def reserve(self) -> Path:
        """Disk space that is freed when the disk is full."""
        return self.directory / "reserve"

    @property
    def files(self) -> Path:
        """Parent of the directories ``00`` to ``ff`` with the immutable files. Each is created when first needed."""
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
        """Held during every commit and checkpoint of SQLite, and while the store is created."""
        return self.directory / "write.lock"

    @property
    def gc_lock(self) -> Path:
        """Held by the running gc; only one can run at a time."""
        return self.directory / "gc.lock"

    @property
    def publish_lock(self) -> Path:
        """Held shared by publications, and exclusively by a rebuild.

        A rebuild must not adopt files that a publication may remove.
        """
        return self.directory / "publish.lock"

    @property
    def cache_lock(self) -> Path:
        """Held by the process that assembles a file for the cache; only one can do so at a time."""
        return self.directory / "cache.lock"

    @property
    def outbox_lock(self) -> Path:
        """Held by the process that sends the rows of the outbox; only one can do so at a time."""
        return self.directory / "outbox.lock"

    @property
    def directories(self) -> tuple[Path, ...]:
        """All directories of a store."""
        return (self.files, self.tmp, self.views, self.sessions, self.quarantine, self.backup)

    @property
    def locks(self) -> tuple[Path, ...]:
        """All lock files of a store except those of its sessions."""
        return (self.write_lock, self.publish_lock, self.gc_lock, self.cache_lock, self.outbox_lock)

    def is_own(self, name: str) -> bool:
        """Return whether a store creates a file or directory of this name in its directory."""
        index = (self.database, *self.logs)
        own = {path.name for path in (self.format_file, self.reserve, *self.directories, *self.locks, *index)}
        return name in own or is_draft_of(self.format_file.name, name)

    def make_directories(self, disk: Disk) -> None:
        """Create the missing directories: all of them for a new store, later those that a user removed."""
        for directory in self.directories:
            disk.make_directory(directory)
        for lock in (self.publish_lock, self.cache_lock):
            make_lock_file(lock)

    def make_all(self, disk: Disk) -> None:
        """Create all missing files and directories, durably, except the database and ``format.json``."""
        self.make_directories(disk)
        for lock in (self.gc_lock, self.outbox_lock):
            make_lock_file(lock)
        disk.sync_directory(self.directory)


def make_lock_file(path: Path) -> None:
    """Create an empty file unless it exists."""
    with suppress(FileExistsError):
        os.close(create_file(path, os.O_RDWR))


def check_platform(directory: Path) -> None:
    """Raise on systems and file systems on which the store would lose data silently.

    Args:
        directory: the existing directory that holds, or will hold, the store; resolved.

    Raises:
        StoreFormatError: the system is Windows, or the directory is on a network file system.
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
    """Return whether the directory holds a completely created store."""
    return layout.format_file.exists()


def check_may_create(layout: Layout) -> None:
    """Raise if the directory holds other files. A store whose creation was interrupted may be created again.

    Raises:
        StoreFormatError: the directory is not empty and holds no incomplete store.
    """
    names = os.listdir(layout.directory)  # read once: another process may be creating the store
    if names and layout.write_lock.name not in names:
        msg = f"{layout.directory} is not a store and not empty: name a store, or an empty or new directory"
        raise StoreFormatError(msg)


def write_format(layout: Layout, disk: Disk, store_id: str) -> None:
    """Write ``format.json``, which completes the creation of the store."""
    fields = {"format": FORMAT, "min_reader": FORMAT, "min_writer": FORMAT, "store_id": store_id}
    disk.write_file(layout.format_file, (json.dumps(fields, indent=2) + "\n").encode())


def new_store_id() -> str:
    """Return a new unique id for a store."""
    return str(uuid.uuid4())


def read_format(layout: Layout) -> str:
    """Check that this version may open the store.

    Returns:
        The store's id.

    Raises:
        StoreFormatError: ``format.json`` is invalid, or a newer version of the program is needed (``is_newer``).
    """
    try:
        fields: dict[str, Any] = json.loads(layout.format_file.read_bytes())
        needed, store_id = max(int(fields["min_reader"]), int(fields["min_writer"])), str(fields["store_id"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{layout.format_file} does not describe a store ({error!r}): run `mlflow-ipfs doctor --rebuild`"
        raise StoreFormatError(msg) from error
    if needed > FORMAT:
        msg = (
            f"the store {layout.directory} has format {fields.get('format')} and needs a program that reads format "
            f"{needed}; this one reads format {FORMAT}: upgrade mlflow-ipfs"
        )
        newer = StoreFormatError(msg)
        newer.is_newer = True
        raise newer
    return store_id
