"""Restore of a backup: MLflow's database and the store, into an empty location."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.backup.backup_directory import BackupDirectory, Manifest
from mlflow_ipfs.backup.database_copies import DatabaseRestore, open_restore, sqlite_file
from mlflow_ipfs.binding.databases.former_locations import forget_all_former_locations
from mlflow_ipfs.binding.databases.sightings import record_move
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.backup import (
    INDEX,
    BackupWriter,
    Layout,
    check_platform,
    copy_backup,
    install,
    is_store,
    make_real_directory,
    read_format,
    real_path,
    status_of,
    translate_copy_errors,
)
from mlflow_ipfs.content.system.disk import Disk, is_draft_of
from mlflow_ipfs.content.system.locking import locked_directory
from mlflow_ipfs.content.system.ownership import create_parents
from mlflow_ipfs.errors import ConflictError, MlflowIpfsError, NotFoundError, PolicyError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.storage.local.backup import BackupReport

_logger = logging.getLogger(__name__)

_WORK: Final = "restoring"  # a directory in a store that is being restored: drafts, and the id of the store
_DRAFTS: Final = "drafts"


class Restored(NamedTuple):
    """Result of a restore.

    Attributes:
        manifest: the manifest of the backup.
        report: what was copied of the store; None if an earlier attempt had completed everything but the cleanup.
        has_new_database: whether this restore wrote MLflow's database. False if no database was requested, or if an
            equal one already existed.
    """

    manifest: Manifest
    report: BackupReport | None
    has_new_database: bool


def restore_backup(
    directory: Path,
    target: Path,
    database: URL | None,
    *,
    verify: bool = True,
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> Restored:
    """Restore a backup into an empty location. The backup does not change.

    Args:
        directory: the backup.
        target: the directory of the restored store: new, empty, or left by an interrupted restore of the same store.
        database: the URL of the restored database; None to restore the store alone.
        verify: hash the copied files.
        progress: called with the number of bytes copied or hashed since its last call.
        disk: performs every operation; for tests.

    Raises:
        NotFoundError: the directory does not contain a backup.
        StoreFormatError: the backup is not complete, damaged, or of a newer format. The restored files are removed.
        ConflictError: a store or a database already exists at the target.
        PolicyError: two of the backup, the store and the database would overlap, or a path cannot be used.
        SettingsError: the database is of another kind.
        StoreBusyError: another restore into the same location is running.
    """
    disk = disk or Disk()
    backup = BackupDirectory(real_path(directory), disk)
    target = real_path(target)
    with translate_copy_errors(target), ExitStack() as stack:
        manifest = backup.read()
        restoring = _Restoring(target, manifest, disk)
        # Every check comes before the first write.
        _refuse_overlap(backup.directory, target, database)
        restoring.check()
        database_restore = _open_restore(backup, manifest, database, disk)
        stack.enter_context(restoring.locked())
        if restoring.is_done():
            # The interrupted attempt may have been made without the database.
            done = Restored(manifest, None, database_restore is not None and database_restore.restore())
        else:
            done = _restore(backup, manifest, restoring, database_restore, progress, verify=verify)
        restoring.clean_up()
    if database is not None:
        _record_location(target, database)
        _forget_former_places(database)
    return done


def _forget_former_places(database: URL) -> None:
    """Forget the directories that the original was adopted from: files may still be written there for the original."""
    engine = sqlalchemy.create_engine(database, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            forget_all_former_locations(connection)
    finally:
        engine.dispose()


def _record_location(target: Path, database: URL) -> None:
    """Record the new location of the database in the restored store. The original database belongs to another store."""
    with open_local_storage(target, create=False) as storage:
        try:
            record_move(storage, database, from_any=False)
        except NotFoundError:
            return  # the plugin has not opened this database yet
        except (MlflowIpfsError, SQLAlchemyError, OSError) as error:  # the restore itself is complete
            _logger.warning(
                "%s is restored, but its new location could not be recorded in the store (%s): "
                "run `mlflow-ipfs databases moved`",
                database.render_as_string(hide_password=True),
                error,
            )


def _restore(
    backup: BackupDirectory,
    manifest: Manifest,
    restoring: _Restoring,
    database_restore: DatabaseRestore | None,
    progress: Callable[[int], None] | None,
    *,
    verify: bool,
) -> Restored:
    work = restoring.begin()
    writer = BackupWriter(backup.disk, restoring.target, work, progress, verify_rows=True)
    store_id, report = copy_backup(backup.store, backup.find(INDEX), writer, verify=verify)
    if store_id != manifest.store_id:
        msg = (
            f"the backup {backup.directory} is damaged: backup.json and the copied store have different store ids. "
            "Use another backup"
        )
        raise StoreFormatError(msg)
    has_new_database = database_restore is not None and database_restore.restore()
    install(backup.disk, restoring.target, work / INDEX, store_id)
    return Restored(manifest, report, has_new_database)


def _refuse_overlap(backup: Path, target: Path, database: URL | None) -> None:
    if target.is_relative_to(backup) or backup.is_relative_to(target):
        msg = f"{target} and the backup {backup} overlap: restore to another directory"
        raise PolicyError(msg)
    if database is not None and database.get_backend_name() == "sqlite":
        file = real_path(sqlite_file(database))
        for directory in (backup, target):
            if file.is_relative_to(directory):
                msg = f"MLflow's database {file} would be inside {directory}: name another path for the database"
                raise PolicyError(msg)


def _open_restore(
    backup: BackupDirectory, manifest: Manifest, database: URL | None, disk: Disk
) -> DatabaseRestore | None:
    if database is None:
        return None
    if manifest.database is None:
        msg = f"the backup {backup.directory} does not contain a database: restore it with --store-only"
        raise ConflictError(msg)
    restore = open_restore(database, backup.find(manifest.database), disk)
    restore.check()
    restore.check_copy()
    return restore


class _Restoring:
    """Directory of a store that is being restored. No program opens it before its ``format.json`` is written."""

    def __init__(self, target: Path, manifest: Manifest, disk: Disk) -> None:
        self.target = target
        self._work = target / _WORK
        self._owner = self._work / "store_id"
        self._manifest = manifest
        self._disk = disk

    def check(self) -> None:
        """Raise if the directory is in use or cannot hold a store. Change nothing.

        Raises:
            ConflictError: the directory contains other files.
            StoreFormatError: its file system does not support a store.
        """
        existing = next(path for path in (self.target, *self.target.parents) if path.exists())
        check_platform(existing.resolve())
        if not self.target.exists():
            return
        if self._is_owned():
            self._refuse_foreign_files()
            return
        if not self.target.is_dir() or any(self.target.iterdir()):
            msg = (
                f"{self.target} already exists and was not overwritten: move it away, or name another directory with "
                "--store"
            )
            raise ConflictError(msg)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other restores out, for the length of a ``with``. Remove the restored files if the backup is damaged.

        Raises:
            StoreBusyError: another restore into the directory is running.
        """
        existed = self.target.exists()
        create_parents(self.target)
        make_real_directory(self._disk, self.target)
        with locked_directory(self.target, "restores a backup into"):
            self.check()  # again: another restore may have finished meanwhile
            try:
                yield
            except StoreFormatError:
                self._roll_back()
                if not existed:
                    with suppress(OSError):
                        self.target.rmdir()
                raise

    def is_done(self) -> bool:
        """Return whether an earlier attempt was interrupted when only the cleanup was left."""
        layout = Layout(self.target)
        return self._is_owned() and is_store(layout) and read_format(layout) == self._manifest.store_id

    def begin(self) -> Path:
        """Record the store's id in the directory. Return an empty directory inside it, for drafts."""
        make_real_directory(self._disk, self._work)
        self._disk.write_file(self._owner, self._manifest.store_id.encode())
        drafts = self._work / _DRAFTS
        self._disk.remove_tree(drafts)
        make_real_directory(self._disk, drafts)
        return drafts

    def clean_up(self) -> None:
        """Remove the files that only the restore needed."""
        self._disk.remove_tree(self._work)

    def _roll_back(self) -> None:
        """Remove the restored files: those with names that a restore makes. The directory was empty before."""
        if not self._is_owned() or is_store(Layout(self.target)):
            return
        for path in sorted(self.target.iterdir(), key=lambda path: path == self._work):  # the store's id last
            if not self._is_own(path.name):
                continue  # another program has created it meanwhile
            self._disk.remove_tree(path)  # does nothing for a symbolic link, which is removed below
            if path.is_symlink() or path.is_file():
                self._disk.remove(path)

    def _is_owned(self) -> bool:
        """Return whether the directory was left by an interrupted restore of the same store."""
        if self._work.is_symlink() or not self._work.is_dir():
            return False
        if os.path.lexists(self._owner):
            expected = self._manifest.store_id.encode()
            status = status_of(self._owner)  # check the type first: reading a pipe would block
            return status is not None and status.st_size == len(expected) and self._owner.read_bytes() == expected
        # The restore was killed at its beginning or during its cleanup.
        is_alone = {path.name for path in self.target.iterdir()} == {_WORK}
        return is_alone and all(self._is_made_in_work(path.name) for path in self._work.iterdir())

    def _refuse_foreign_files(self) -> None:
        foreign = sorted(path.name for path in self.target.iterdir() if not self._is_own(path.name))
        foreign += [f"{_WORK}/{path.name}" for path in self._work.iterdir() if not self._is_made_in_work(path.name)]
        if foreign:
            msg = (
                f"{self.target / foreign[0]} was not made by the interrupted restore and was not changed: move it "
                "away, or name another directory with --store"
            )
            raise ConflictError(msg)

    def _is_own(self, name: str) -> bool:
        return name == _WORK or Layout(self.target).is_own(name)

    def _is_made_in_work(self, name: str) -> bool:
        return name in {self._owner.name, _DRAFTS} or is_draft_of(self._owner.name, name)
