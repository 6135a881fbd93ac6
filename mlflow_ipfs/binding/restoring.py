"""Bringing a backup back: MLflow's database and the store, where nothing is yet."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.binding.backup_folder import BackupFolder, Manifest
from mlflow_ipfs.binding.database_copies import DatabaseRestore, open_restore, sqlite_file
from mlflow_ipfs.content.blockstore.local import layout
from mlflow_ipfs.content.blockstore.local.clone.clone_files import copy_faults, make_real_folder
from mlflow_ipfs.content.blockstore.local.clone.clone_writer import INDEX, CloneWriter
from mlflow_ipfs.content.blockstore.local.clone.cloning import clone_folder, install
from mlflow_ipfs.content.blockstore.local.layout import Layout
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import locked_folder
from mlflow_ipfs.errors import ConflictError, PolicyError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.blockstore.local.clone.cloning import CloneReport

_WORK: Final = "restoring"  # a folder in a store that is being restored: drafts, and whose store it is


class Restored(NamedTuple):
    """What a restore did.

    Attributes:
        manifest: what the backup is.
        report: what was copied of the store; None if an earlier attempt had done everything but tidy up.
        has_new_database: whether MLflow's database was put there now: not if none was asked for, or it was there, the same.
    """

    manifest: Manifest
    report: CloneReport | None
    has_new_database: bool


def restore_backup(
    folder: Path,
    target: Path,
    database: URL | None,
    *,
    verify: bool = True,
    progress: Callable[[int], None] | None = None,
    disk: Disk | None = None,
) -> Restored:
    """Put a backup where nothing is yet. Nothing in the backup changes.

    Args:
        folder: the backup.
        target: where the store goes: a new or empty folder, or what an earlier attempt has left of it.
        database: where MLflow's database goes; None: nowhere.
        verify: hash what is copied.
        progress: told how many bytes were copied or hashed since it was told last.
        disk: takes every step; for tests.

    Raises:
        NotFoundError: there is no backup.
        StoreFormatError: it is not complete, damaged, or of a newer format. Nothing is left of what was restored from it.
        ConflictError: there is a store, or a database, already.
        PolicyError: two of the backup, the store and the database would lie in each other.
        SettingsError: the database is of another kind.
        StoreBusyError: another restore into the same place is under way.
    """
    disk = disk or Disk()
    backup = BackupFolder(folder.resolve(), disk)
    manifest = backup.read()
    restoring = _Restoring(target.resolve(), manifest, disk)
    # All that can be refused is, before anything is made.
    _refuse_overlap(backup.folder, restoring.target, database)
    restoring.check()
    database_restore = _open_restore(backup, manifest, database, disk)
    with copy_faults(restoring.target), restoring.alone():
        if restoring.is_done():
            # The attempt that was broken off may have left the database out.
            done = Restored(manifest, None, database_restore is not None and database_restore.restore())
        else:
            done = _restore(backup, manifest, restoring, database_restore, progress, verify=verify)
        restoring.tidy_up()
    return done


def _restore(
    backup: BackupFolder,
    manifest: Manifest,
    restoring: _Restoring,
    database_restore: DatabaseRestore | None,
    progress: Callable[[int], None] | None,
    *,
    verify: bool,
) -> Restored:
    work = restoring.begin()
    writer = CloneWriter(backup.disk, restoring.target, work, progress, doubts_rows=True)
    store_id, report = clone_folder(backup.store, backup.find(INDEX), writer, verify=verify)
    if store_id != manifest.store_id:
        msg = f"in the backup {backup.folder}, backup.json and the store are of different stores"
        raise StoreFormatError(msg)
    has_new_database = database_restore is not None and database_restore.restore()
    install(backup.disk, restoring.target, work / INDEX, store_id)
    return Restored(manifest, report, has_new_database)


def _refuse_overlap(backup: Path, target: Path, database: URL | None) -> None:
    if target.is_relative_to(backup) or backup.is_relative_to(target):
        msg = f"{target} and the backup {backup} lie in each other: restore to another place"
        raise PolicyError(msg)
    if database is not None and database.get_backend_name() == "sqlite":
        file = sqlite_file(database).resolve()
        for folder in (backup, target):
            if file.is_relative_to(folder):
                msg = f"MLflow's database {file} would lie in {folder}: name another place for it"
                raise PolicyError(msg)


def _open_restore(backup: BackupFolder, manifest: Manifest, database: URL | None, disk: Disk) -> DatabaseRestore | None:
    if database is None:
        return None
    if manifest.database is None:
        msg = f"the backup {backup.folder} has no database in it: restore it with --store-only"
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
        layout.check_platform(existing.resolve())
        if not self.target.exists() or self._is_begun():
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
        self.target.parent.mkdir(parents=True, exist_ok=True)
        make_real_folder(self._disk, self.target)
        with locked_folder(self.target, "restores a backup into"):
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
        return self._is_begun() and layout.is_store(where) and layout.read_format(where) == self._manifest.store_id

    def begin(self) -> Path:
        """Take possession of the folder. Returns an empty one in it, for drafts."""
        make_real_folder(self._disk, self._work)
        self._disk.write_file(self._owner, self._manifest.store_id.encode())
        drafts = self._work / "drafts"
        self._disk.remove_tree(drafts)
        make_real_folder(self._disk, drafts)
        return drafts

    def tidy_up(self) -> None:
        """Remove what only restoring needed."""
        self._disk.remove_tree(self._work)

    def _give_up(self) -> None:
        """Remove everything; the folder was empty before."""
        if not self._is_begun() or layout.is_store(Layout(self.target)):
            return
        for path in sorted(self.target.iterdir(), key=lambda path: path == self._work):  # what says whose it is, last
            self._disk.remove_tree(path)  # a link is left alone
            if path.is_symlink() or path.is_file():
                self._disk.remove(path)

    def _is_begun(self) -> bool:
        """Whether the folder holds nothing but what a broken-off restore of this very store has left there."""
        if self._work.is_symlink() or not self._work.is_dir():
            return False
        try:
            return self._owner.read_text() == self._manifest.store_id
        except FileNotFoundError:
            return {path.name for path in self.target.iterdir()} == {_WORK}
