"""Backups of MLflow's database and the store together, and bringing them back."""

from __future__ import annotations

import importlib.metadata
import platform
import sqlite3
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.backup_folder import BackupFolder, Manifest
from mlflow_ipfs.binding.database_copies import DatabaseCopy, DatabaseRestore, open_copy, open_restore, sqlite_file
from mlflow_ipfs.content.blockstore.local import LocalStorage, layout
from mlflow_ipfs.content.blockstore.local.clone.capturing import Alone
from mlflow_ipfs.content.blockstore.local.clone.clone_files import copy_faults, make_real_folder
from mlflow_ipfs.content.blockstore.local.clone.clone_writer import INDEX, CloneWriter
from mlflow_ipfs.content.blockstore.local.clone.cloning import clone_folder, install
from mlflow_ipfs.content.blockstore.local.layout import Layout
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import ConflictError, PolicyError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.blockstore.local.clone.cloning import CloneReport
    from mlflow_ipfs.content.store import ContentStore

_RESTORING: Final = "restoring"  # a folder in a store that is being restored: drafts, and whose store it is


def make_backup(
    store: ContentStore,
    folder: Path,
    database: URL | None,
    *,
    verify: bool = True,
    timeout_seconds: float,
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> tuple[Manifest, CloneReport]:
    """Copy a store and MLflow's database, as both are in one moment, while everybody goes on working.

    Args:
        store: the store.
        folder: where the backup goes: new, empty, or with an earlier backup of this store.
        database: MLflow's; None: the store alone.
        verify: hash what is copied.
        timeout_seconds: how long to wait for another backup into the folder.
        progress: told how many bytes were copied or hashed since it was told last.
        disk: takes every step on the backup's disk; for tests.

    Returns:
        What the backup is, and what was done.

    Raises:
        PolicyError: the folder can't hold this backup.
        StoreBusyError: the database or the store was locked by others for too long.
        StoreFullError: there is no room, on the disk that the message names.
        IntegrityError: the backup's disk does not give back what was written to it.
    """
    storage = _local(store)
    backup = BackupFolder(folder.resolve(), disk or Disk())
    _refuse_overlap(backup.folder, storage.folder, database)
    with (
        copy_faults(backup.folder),
        backup.writing(storage.store_id, timeout_seconds=timeout_seconds),
        ExitStack() as opened,
    ):
        copy = None
        if database is not None:
            copy = opened.enter_context(
                closing(open_copy(database, backup.next, backup.disk, storage.make_view_folder()))
            )
        writer = CloneWriter(backup.disk, backup.store, backup.next, progress)
        report = storage.clone(writer, copy or Alone(), verify=verify)
        manifest = _describe(storage, report, copy, verify=verify)
        backup.switch(manifest)
    return manifest, report


def _local(store: ContentStore) -> LocalStorage:
    if not isinstance(store.storage, LocalStorage):
        msg = "only a local store can be backed up"
        raise PolicyError(msg)
    return store.storage


def _refuse_overlap(folder: Path, store: Path, database: URL | None) -> None:
    store = store.resolve()
    if folder.is_relative_to(store) or store.is_relative_to(folder):
        msg = f"{folder} and the store {store} lie in each other: a backup needs a folder of its own, best on another disk"
        raise PolicyError(msg)
    if database is not None and database.get_backend_name() == "sqlite":
        file = sqlite_file(database).resolve()
        if file.is_relative_to(folder):
            msg = f"MLflow's database {file} lies in {folder}: name a folder for the backup alone"
            raise PolicyError(msg)


def _describe(storage: LocalStorage, report: CloneReport, copy: DatabaseCopy | None, *, verify: bool) -> Manifest:
    return Manifest(
        store_id=storage.store_id,
        taken_at=_iso(report.taken_at),
        finished_at=_iso(None),
        database=copy.file_name if copy is not None else None,
        verified=verify,
        problems=len(report.problems),
        files=report.files,
        size_bytes=report.size_bytes,
        versions=_versions(),
        complete=True,
    )


def _iso(seconds: float | None) -> str:
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in ("mlflow-ipfs", "mlflow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def restore_backup(
    folder: Path,
    target: Path,
    database: URL | None,
    *,
    verify: bool = True,
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> tuple[Manifest, CloneReport | None]:
    """Put a backup where nothing is yet. Nothing in the backup changes.

    Args:
        folder: the backup.
        target: where the store goes: a new or empty folder, or what an earlier attempt has left of it.
        database: where MLflow's database goes; None: nowhere.
        verify: hash what is copied.
        progress: told how many bytes were copied or hashed since it was told last.
        disk: takes every step; for tests.

    Returns:
        What the backup is, and what was done; None if an earlier attempt had done everything but tidy up.

    Raises:
        NotFoundError: there is no backup.
        StoreFormatError: it is not complete, damaged, or of a newer format.
        ConflictError: there is a store, or a database, already.
        SettingsError: the database is of another kind.
    """
    disk = disk or Disk()
    backup = BackupFolder(folder.resolve(), disk)
    manifest = backup.read()
    database_restore = _open_restore(backup, manifest, database, disk)
    restoring = _Restoring(target.resolve(), manifest, disk)
    if restoring.is_done():
        if database_restore is not None:  # the attempt that was broken off may have left it out
            database_restore.restore()
        restoring.tidy_up()
        return manifest, None
    with copy_faults(restoring.target):
        work = restoring.begin(backup.folder)
        writer = CloneWriter(disk, restoring.target, work, progress)
        store_id, report = clone_folder(backup.store, backup.find(INDEX), writer, verify=verify)
        if store_id != manifest.store_id:
            msg = f"in the backup {backup.folder}, backup.json and the store are of different stores"
            raise StoreFormatError(msg)
        if database_restore is not None:
            database_restore.restore()
        install(disk, restoring.target, work / INDEX, store_id)
        restoring.tidy_up()
    return manifest, report


def _open_restore(backup: BackupFolder, manifest: Manifest, database: URL | None, disk: Disk) -> DatabaseRestore | None:
    if database is None:
        return None
    if manifest.database is None:
        msg = f"the backup {backup.folder} has no database in it: restore it with --store-only"
        raise ConflictError(msg)
    restore = open_restore(database, backup.find(manifest.database), disk)
    restore.check()
    return restore


class _Restoring:
    """A store that is not one yet: until its ``format.json`` is written nobody opens it."""

    def __init__(self, target: Path, manifest: Manifest, disk: Disk) -> None:
        self.target = target
        self._work = target / _RESTORING
        self._owner = self._work / "store_id"
        self._manifest = manifest
        self._disk = disk

    def is_done(self) -> bool:
        """Whether an earlier attempt was broken off after its last step that matters."""
        where = Layout(self.target)
        return self._is_begun() and layout.is_store(where) and layout.read_format(where) == self._manifest.store_id

    def begin(self, backup: Path) -> Path:
        """Take possession of the folder. Returns an empty one in it, for drafts."""
        if self.target.is_relative_to(backup) or backup.is_relative_to(self.target):
            msg = f"{self.target} and the backup {backup} lie in each other: restore to another place"
            raise PolicyError(msg)
        existing = next(path for path in (self.target, *self.target.parents) if path.exists())
        layout.check_platform(existing.resolve())
        if not self._is_begun() and self.target.exists() and any(self.target.iterdir()):
            msg = (
                f"{self.target} is there already, and nothing is written over it: move it away, or name another place "
                "with --store"
            )
            raise ConflictError(msg)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.target, self._work):
            make_real_folder(self._disk, path)
        self._disk.write_file(self._owner, self._manifest.store_id.encode())
        drafts = self._work / "drafts"
        self._disk.remove_tree(drafts)
        make_real_folder(self._disk, drafts)
        return drafts

    def tidy_up(self) -> None:
        """Remove what only restoring needed."""
        self._disk.remove_tree(self._work)

    def _is_begun(self) -> bool:
        """Whether the folder holds nothing but what a broken-off restore of this very store has left there."""
        if not self._work.is_dir():
            return False
        try:
            return self._owner.read_text() == self._manifest.store_id
        except FileNotFoundError:
            return {path.name for path in self.target.iterdir()} == {_RESTORING}
