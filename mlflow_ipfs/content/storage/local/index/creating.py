"""Creation and lookup of a store, and the checks that decide whether this program may open it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from mlflow_ipfs.content.storage.local.index import layout as layouts
from mlflow_ipfs.content.storage.local.index import schema
from mlflow_ipfs.content.storage.local.index.error_translation import (
    how_to_restore,
    translate_database_errors,
    translate_disk_errors,
)
from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.system import ownership
from mlflow_ipfs.content.system.access import no_access
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.content.system.mounts import is_read_only_mount
from mlflow_ipfs.errors import PolicyError, StoreFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.database import Database
    from mlflow_ipfs.content.system.disk import Disk


def find_or_create(directory: Path, disk: Disk, *, timeout_seconds: float, create: bool) -> tuple[Layout, str]:
    """Find the store in a directory, or create one.

    Returns:
        The store's layout and its id.

    Raises:
        StoreFormatError: the directory holds no store and ``create`` is false. Or the directory holds other files, a
            store of a newer format, or is on a file system that cannot hold a store.
        PolicyError: this process runs as root, and another user has replaced a directory by a symbolic link.
    """
    layouts.check_platform(_nearest_existing(directory).resolve())
    if create:
        _make_directory(directory)
    if not directory.is_dir():
        raise _no_store(directory)
    layout = Layout(directory.resolve())
    check_links(layout)
    if not layouts.is_store(layout):
        if not create:
            raise _no_store(directory)
        with translate_disk_errors(layout.directory):
            _create(layout, disk, timeout_seconds)
    return layout, layouts.read_format(layout)


def find_to_read(directory: Path) -> tuple[Layout, str]:
    """Find a store that no process writes to, on any file system. Returns the same as ``find_or_create``.

    Raises:
        StoreFormatError: the directory holds no store, the store has a newer format, or its log holds changes.
    """
    layout = Layout(directory.resolve())
    if not layouts.is_store(layout):
        raise _no_store(directory)
    _check_log(layout, "end the programs that use the store, and run `mlflow-ipfs doctor` on it once")
    return layout, layouts.read_format(layout)


def _no_store(directory: Path) -> StoreFormatError:
    """Return the error for a directory without a store, with what the path is instead."""
    msg, advice = f"no store found at {directory}", "name the directory of a store"
    if directory.is_dir():
        msg += f": the directory has no {Layout(directory).format_file.name}"
        if layouts.is_store(Layout(directory / "store")):  # a backup keeps its copy of the store there
            advice = f"name the store in it, {directory / 'store'}"
    elif os.path.lexists(directory):
        msg += ": the path is a file" if directory.is_file() else ": the path exists but is not a directory"
    return StoreFormatError(f"{msg}; {advice}")


def _check_log(layout: Layout, advice: str) -> None:
    """Raise if the log of a store that can only be read holds changes: a reader without the log would miss them."""
    if layout.log.exists() and layout.log.stat().st_size:
        msg = f"{layout.directory} can only be read, and its log {layout.log.name} holds changes: {advice}"
        raise StoreFormatError(msg)


def _nearest_existing(directory: Path) -> Path:
    """Return the directory or its nearest existing parent, which is on the same file system."""
    return directory if directory.exists() else _nearest_existing(directory.parent)


def _make_directory(directory: Path) -> None:
    """Create a directory with private permissions, and missing parents with the usual ones."""
    if directory.exists():
        return
    with translate_disk_errors(_nearest_existing(directory)), suppress(FileExistsError):
        ownership.create_parents(directory)
        ownership.create_directory(directory)


def _create(layout: Layout, disk: Disk, timeout_seconds: float) -> None:
    """Create the store. Of several processes one creates it, and the other processes wait for it."""
    layouts.check_may_create(layout)
    if not layout.database.exists() and layout.files.is_dir() and any(layout.files.iterdir()):
        # A new index would have no rows for these files, and the next gc would remove them.
        raise lost_index(layout)
    layouts.make_lock_file(layout.write_lock)
    lock = FileLock(layout.write_lock, timeout_seconds=timeout_seconds, purpose="is creating the store")
    with lock.exclusive():
        if layouts.is_store(layout):
            return
        layout.make_all(disk)
        store_id = _create_database(layout, disk)
        layouts.write_format(layout, disk, store_id)
    with suppress(PermissionError):  # a parent directory of another user may not even be readable
        disk.sync_directory(layout.directory.parent)


def _create_database(layout: Layout, disk: Disk) -> str:
    """Create the tables, unless an interrupted attempt has created them already. Return the store's id."""
    with translate_database_errors(layout):
        with suppress(FileExistsError):  # SQLite would create the file with the owner and the umask of this process
            disk.close(disk.create(layout.database))
        connection = sqlite3.connect(layout.database, isolation_level=None)
        try:
            if schema.schema_version(connection) == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                schema.create_tables(connection, layouts.new_store_id())
                disk.commit(connection)
            return schema.stored_id(connection)
        finally:
            connection.close()


def check_database(layout: Layout, database: Database, store_id: str) -> None:
    """Check that the index exists, was written by this program, and belongs to this store.

    Raises:
        StoreFormatError: one of these checks fails.
    """
    if not layout.database.exists():
        raise lost_index(layout)
    with database.read() as connection:
        if schema.schema_version(connection) == 0:
            msg = f"the index {layout.database} has no tables: {how_to_restore(layout)}"
            raise StoreFormatError(msg)
        found = schema.stored_id(connection)
    if found != store_id:
        msg = (
            f"in {layout.directory}, format.json and store.db belong to different stores ({store_id} and {found}): "
            "restore both files from the same store"
        )
        raise StoreFormatError(msg)


def lost_index(layout: Layout) -> StoreFormatError:
    """Return the error for a store without ``store.db``."""
    return StoreFormatError(f"the store {layout.directory} has lost its index: {how_to_restore(layout)}")


def check_links(layout: Layout) -> None:
    """Raise if root would follow a symbolic link in a store of another user: root would write and delete elsewhere.

    Raises:
        PolicyError: a directory of the store is a symbolic link.
    """
    if os.geteuid() != 0 or layout.directory.stat().st_uid == 0:
        return
    for directory in layout.directories:
        if directory.is_symlink():
            msg = (
                f"{directory} is a symbolic link, and root follows no link in a store of another user: "
                "remove it, or run this command as the owner of the store"
            )
            raise PolicyError(msg)


def is_read_only(layout: Layout) -> bool:
    """Return whether the store is on a read-only mount.

    Raises:
        StoreFormatError: it is, and the log holds changes that only a writer can move into the index.
        PolicyError: the mount is writable, but this user may not write to the store's directory.
    """
    if not is_read_only_mount(layout.directory):
        if not os.access(layout.directory, os.W_OK | os.X_OK):
            raise no_access(layout.directory, layout.directory)
        return False
    _check_log(layout, "it is on a read-only mount; mount it writable once and run `mlflow-ipfs doctor`")
    return True
