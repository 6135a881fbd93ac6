"""Bringing a backup back: MLflow's database and the store, where nothing is yet."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from mlflow_ipfs.backup.backup_directory import BackupDirectory, Manifest
from mlflow_ipfs.backup.database_copies import DatabaseRestore, open_restore, sqlite_file
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

_WORK: Final = "restoring"  # a directory in a store that is being restored: drafts, and whose store it is
_DRAFTS: Final = "drafts"


class Restored(NamedTuple):
    """What a restore did.

    Attributes:
        manifest: what the backup is.
        report: what was copied of the store; None if an earlier attempt had done everything but tidy up.
        has_new_database: whether MLflow's database was put there now: not if none was asked for, or it was there, the same.
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
    """Put a backup where nothing is yet. Nothing in the backup changes.

    Args:
        directory: the backup.
        target: where the store goes: a new or empty directory, or what an earlier attempt has left of it.
        database: where MLflow's database goes; None: nowhere.
        verify: hash what is copied.
        progress: told how many bytes were copied or hashed since it was told last.
        disk: takes every step; for tests.

    Raises:
        NotFoundError: there is no backup.
        StoreFormatError: it is not complete, damaged, or of a newer format. Nothing is left of what was restored from it.
        ConflictError: there is a store, or a database, already.
        PolicyError: two of the backup, the store and the database would lie in each other, or one has an impossible name.
        SettingsError: the database is of another kind.
        StoreBusyError: another restore into the same place is under way.
    """
    disk = disk or Disk()
    backup = BackupDirectory(real_path(directory), disk)
    target = real_path(target)
    with translate_copy_errors(target), ExitStack() as stack:
        manifest = backup.read()
        restoring = _Restoring(target, manifest, disk)
        # All that can be refused is, before anything is made.
        _refuse_overlap(backup.directory, target, database)
        restoring.check()
        database_restore = _open_restore(backup, manifest, database, disk)
        stack.enter_context(restoring.alone())
        if restoring.is_done():
            # The attempt that was broken off may have left the database out.
            done = Restored(manifest, None, database_restore is not None and database_restore.restore())
        else:
            done = _restore(backup, manifest, restoring, database_restore, progress, verify=verify)
        restoring.tidy_up()
    if database is not None:
        _record_place(target, database)
    return done


def _record_place(target: Path, database: URL) -> None:
    """Let the restored store know where its database is now: the one that was backed up has another store."""
    with open_local_storage(target, create=False) as storage:
        try:
            record_move(storage, database, from_any=False)
        except NotFoundError:
            return  # a database that no store of ours has opened yet
        except (MlflowIpfsError, SQLAlchemyError, OSError) as error:  # all is restored
            _logger.warning(
                "%s is restored, but the store could not record where it is (%s); run `mlflow-ipfs databases moved`",
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
        msg = f"in the backup {backup.directory}, backup.json and the store are of different stores"
        raise StoreFormatError(msg)
    has_new_database = database_restore is not None and database_restore.restore()
    install(backup.disk, restoring.target, work / INDEX, store_id)
    return Restored(manifest, report, has_new_database)


def _refuse_overlap(backup: Path, target: Path, database: URL | None) -> None:
    if target.is_relative_to(backup) or backup.is_relative_to(target):
        msg = f"{target} and the backup {backup} lie in each other: restore to another place"
        raise PolicyError(msg)
    if database is not None and database.get_backend_name() == "sqlite":
        file = real_path(sqlite_file(database))
        for directory in (backup, target):
            if file.is_relative_to(directory):
                msg = f"MLflow's database {file} would lie in {directory}: name another place for it"
                raise PolicyError(msg)


def _open_restore(
    backup: BackupDirectory, manifest: Manifest, database: URL | None, disk: Disk
) -> DatabaseRestore | None:
    if database is None:
        return None
    if manifest.database is None:
        msg = f"the backup {backup.directory} has no database in it: restore it with --store-only"
        raise ConflictError(msg)
    restore = open_restore(database, backup.find(manifest.database), disk)
    restore.check()
    restore.check_copy()
    return restore


class _Restoring:
    """A store that is not one yet: until its ``format.json`` is written nobody opens it."""

    def __init__(self, target: Path, manifest: Manifest, disk: Disk) -> None:
        self.target = target
        self._work = target / _WORK
        self._owner = self._work / "store_id"
        self._manifest = manifest
        self._disk = disk

    def check(self) -> None:
        """Refuse a place that is taken, or is none for a store. Makes and changes nothing.

        Raises:
            ConflictError: something is there.
            StoreFormatError: its file system can hold no store.
        """
        existing = next(path for path in (self.target, *self.target.parents) if path.exists())
        check_platform(existing.resolve())
        if not self.target.exists():
            return
        if self._is_owned():
            self._refuse_strangers()
            return
        if not self.target.is_dir() or any(self.target.iterdir()):
            msg = (
                f"{self.target} is there already, and nothing is written over it: move it away, or name another place "
                "with --store"
            )
            raise ConflictError(msg)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other restores out, for the length of a ``with``. Of a backup that is found damaged nothing stays.

        Raises:
            StoreBusyError: another one is under way.
        """
        was_there = self.target.exists()
        create_parents(self.target)
        make_real_directory(self._disk, self.target)
        with locked_directory(self.target, "restores a backup into"):
            self.check()  # once more: the one before may have come to its end
            try:
                yield
            except StoreFormatError:
                self._give_up()
                if not was_there:
                    with suppress(OSError):
                        self.target.rmdir()
                raise

    def is_done(self) -> bool:
        """Whether an earlier attempt was broken off after its last step that matters."""
        where = Layout(self.target)
        return self._is_owned() and is_store(where) and read_format(where) == self._manifest.store_id

    def begin(self) -> Path:
        """Take possession of the directory. Returns an empty one in it, for drafts."""
        make_real_directory(self._disk, self._work)
        self._disk.write_file(self._owner, self._manifest.store_id.encode())
        drafts = self._work / _DRAFTS
        self._disk.remove_tree(drafts)
        make_real_directory(self._disk, drafts)
        return drafts

    def tidy_up(self) -> None:
        """Remove what only restoring needed."""
        self._disk.remove_tree(self._work)

    def _give_up(self) -> None:
        """Remove what was restored. Of it are only names that a restore makes; the directory was empty before."""
        if not self._is_owned() or is_store(Layout(self.target)):
            return
        for path in sorted(self.target.iterdir(), key=lambda path: path == self._work):  # what says whose it is, last
            if not self._is_own(path.name):
                continue  # somebody has put it there meanwhile
            self._disk.remove_tree(path)  # a link is left alone
            if path.is_symlink() or path.is_file():
                self._disk.remove(path)

    def _is_owned(self) -> bool:
        """Whether a restore of this very store was begun in the directory, and broken off there."""
        if self._work.is_symlink() or not self._work.is_dir():
            return False
        if os.path.lexists(self._owner):
            expected = self._manifest.store_id.encode()
            status = status_of(self._owner)  # a pipe would be waited for
            return status is not None and status.st_size == len(expected) and self._owner.read_bytes() == expected
        # Killed as it began, or as it tidied up.
        is_alone = {path.name for path in self.target.iterdir()} == {_WORK}
        return is_alone and all(self._is_made_in_work(path.name) for path in self._work.iterdir())

    def _refuse_strangers(self) -> None:
        strangers = sorted(path.name for path in self.target.iterdir() if not self._is_own(path.name))
        strangers += [f"{_WORK}/{path.name}" for path in self._work.iterdir() if not self._is_made_in_work(path.name)]
        if strangers:
            msg = (
                f"{self.target / strangers[0]} is nothing that the broken-off restore has left there, and it is not "
                "touched: move it away, or name another place with --store"
            )
            raise ConflictError(msg)

    def _is_own(self, name: str) -> bool:
        return name == _WORK or Layout(self.target).is_own(name)

    def _is_made_in_work(self, name: str) -> bool:
        return name in {self._owner.name, _DRAFTS} or is_draft_of(self._owner.name, name)
