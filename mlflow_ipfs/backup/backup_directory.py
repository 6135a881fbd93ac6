"""The directory of a backup: its files, and the protocol by which a new backup replaces the previous one.

::

    backup.json   the manifest; if it is missing or says "not complete", there is no backup yet
    mlflow.db     the copy of MLflow's database; mlflow.dump for PostgreSQL
    store/        the copy of the store, itself a store
    next/         files of the next backup; with a backup.json in it, they already belong to the current backup
    backup.lock   held by the one running backup

A backup consists of several files, but only a single rename is atomic. Therefore the new files are made durable below
``next``, and writing ``next/backup.json`` commits the backup. Then each file is moved to its final path. If the process
dies before all are moved, the next backup into the directory moves the others. A reader takes the files of a committed
backup from ``next`` as long as they are there.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.backup.database_copies import FILES
from mlflow_ipfs.content.storage.local.backup import (
    INDEX,
    Layout,
    check_not_in_use,
    install,
    is_store,
    make_lock_file,
    make_real_directory,
    remove_unnamed,
    status_of,
)
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.errors import ConflictError, NotFoundError, PolicyError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


FORMAT: Final = 1
_MAX_MANIFEST_BYTES: Final = 1 << 20
_KINDS: Final[dict[str, type]] = {
    "store_id": str, "taken_at": str, "finished_at": str, "verified": bool, "problems": int, "files": int,
    "size_bytes": int, "versions": dict, "complete": bool, "format": int,
    "outside_artifacts": list,
}  # fmt: skip
_OUTSIDE_KINDS: Final[dict[str, type]] = {"kind": str, "place": str, "count": int, "examples": list}
_LOST_AND_FOUND: Final = "lost+found"  # in the root directory of every ext4 file system


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of ``backup.json``.

    Attributes:
        store_id: id of the copied store.
        taken_at: time of the state that the backup contains; ISO 8601, UTC.
        finished_at: when the backup was completed.
        database: name of the file with the copy of MLflow's database; None if only the store was copied.
        verified: whether the copied files were hashed.
        problems: how many blocks or files were missing or damaged in the store itself.
        files: how many files the copy of the store has.
        size_bytes: total size of these files.
        versions: versions of the programs that made the backup.
        complete: false until the first backup into the directory is complete.
        outside_artifacts: artifacts that the database names and this backup does not contain: ``kind``, ``place``,
            ``count`` and ``examples`` of each group. Missing in backups of older versions, which did not check.
        format: number of this format.
    """

    store_id: str
    taken_at: str = ""
    finished_at: str = ""
    database: str | None = None
    verified: bool = False
    problems: int = 0
    files: int = 0
    size_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    outside_artifacts: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True, slots=True)
class BackupDirectory:
    """Directory of one backup.

    Args:
        directory: an absolute path without symbolic links.
        disk: performs every operation.
    """

    directory: Path
    disk: Disk

    @property
    def store(self) -> Path:
        """The copy of the store."""
        return self.directory / "store"

    @property
    def next(self) -> Path:
        """The directory of the next backup's files and of drafts."""
        return self.directory / "next"

    @property
    def _manifest(self) -> Path:
        return self.directory / "backup.json"

    @property
    def _next_manifest(self) -> Path:
        return self.next / "backup.json"

    @property
    def _lock(self) -> Path:
        return self.directory / "backup.lock"

    def read(self) -> Manifest:
        """Return the manifest of the backup.

        Raises:
            NotFoundError: the directory does not contain a backup.
            StoreFormatError: the backup is not complete, of a newer format, or damaged; or one of its directories is a
                symbolic link.
        """
        for directory in (self.store, self.next, self.store / "files", self.store / "quarantine"):
            if os.path.lexists(directory) and not stat.S_ISDIR(directory.lstat().st_mode):
                msg = (
                    f"the backup {self.directory} is damaged: {directory} is a symbolic link or a file instead of a "
                    "directory. Use another backup"
                )
                raise StoreFormatError(msg)
        path = self._next_manifest if self._next_manifest.exists() else self._manifest
        if not path.exists():
            msg = f"{self.directory} does not contain a backup ({self._manifest.name} is missing){self._hint()}"
            raise NotFoundError(msg)
        manifest = _read_manifest(path)
        if not manifest.complete:
            msg = f"the backup {self.directory} is not complete: run `mlflow-ipfs backup` again to complete it"
            raise StoreFormatError(msg)
        return manifest

    def _hint(self) -> str:
        above = BackupDirectory(self.directory.parent, self.disk)
        is_part = above.store == self.directory and above._manifest.exists()
        return f". It is part of the backup {above.directory}: name that directory" if is_part else ""

    def find(self, name: str) -> Path:
        """Return the current path of a file of the backup: its final path, or the one below ``next``.

        Raises:
            StoreFormatError: the file is missing or is not a regular file.
        """
        path = (self.store if name == INDEX else self.directory) / name
        if self._next_manifest.exists() and os.path.lexists(self.next / name):
            path = self.next / name
        if status_of(path) is None:
            msg = (
                f"the backup {self.directory} is damaged: {path} is missing or is not a regular file. "
                "Use another backup"
            )
            raise StoreFormatError(msg)
        return path

    def check(self, store_id: str) -> None:
        """Raise if a backup of a store cannot be made in the directory. Change nothing.

        Raises:
            ConflictError: the directory contains other files or the backup of another store.
            PolicyError: a path in the directory is a symbolic link.
            StoreFormatError: the directory contains a backup of a newer format or a damaged one.
        """
        if self.directory.exists():
            self._refuse_foreign()
            self._check_owner(store_id)

    @contextmanager
    def writing(self, store_id: str, *, timeout_seconds: float) -> Iterator[None]:
        """Prepare the directory for the next backup of a store and lock it, for the length of a ``with``.

        Raises:
            ConflictError: the directory contains other files or the backup of another store.
            PolicyError: a path in the directory is a symbolic link.
            StoreFormatError: the directory contains a backup of a newer format or a damaged one.
            StoreBusyError: another backup is being made there, or another program has the copied store open.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refuse_foreign()
        make_lock_file(self._lock)
        with FileLock(self._lock, timeout_seconds=timeout_seconds, purpose="is making a backup").exclusive():
            self._check_owner(store_id)
            self._complete_switch()
            if not self._manifest.exists():  # the first write: it marks the directory as an incomplete backup
                self.disk.write_file(self._manifest, Manifest(store_id).encode())
            self.disk.remove_tree(self.next)
            for directory in (self.store, self.next):
                make_real_directory(self.disk, directory)
            try:
                yield
            except BaseException:
                if not self._next_manifest.exists():
                    self.disk.remove_tree(self.next)  # only drafts: copied files are in `store`, for the next attempt
                raise

    def switch(self, manifest: Manifest) -> None:
        """Make the files in ``next`` the current backup, and remove files that only the previous one needed.

        Raises:
            StoreBusyError: another program has opened the copied store meanwhile. The previous backup stays current.
        """
        check_not_in_use(self.store)
        self.disk.sync_directory(self.next)
        self.disk.write_file(self._next_manifest, manifest.encode())
        self._complete_switch()

    def _complete_switch(self) -> None:
        """Move the files of a committed backup to their final paths. Safe to interrupt and to repeat."""
        if not self._next_manifest.exists():
            return
        check_not_in_use(self.store)
        manifest = _read_manifest(self._next_manifest)
        install(self.disk, self.store, self.next / INDEX, manifest.store_id)
        for name in FILES:
            if (self.next / name).exists():
                self.disk.rename(self.next / name, self.directory / name)
            elif name != manifest.database:
                self.disk.remove(self.directory / name)
        self.disk.sync_directory(self.directory)
        self.disk.rename(self._next_manifest, self._manifest)
        self.disk.sync_directory(self.directory)
        remove_unnamed(self.disk, self.store)
        self.disk.remove_tree(self.next)

    def _refuse_foreign(self) -> None:
        names = {path.name for path in self.directory.iterdir()} - {self._lock.name, _LOST_AND_FOUND}
        is_ours = self._manifest.name in names or all(name.startswith(self._manifest.name) for name in names)
        if not is_ours:
            msg = f"{self.directory} contains files that are not part of a backup: name a new or an empty directory"
            raise ConflictError(msg)
        for path in (self._lock, self._manifest, self.store, self.next):
            if path.is_symlink():
                msg = f"{path} is a symbolic link, and a backup is not written through links: remove it"
                raise PolicyError(msg)

    def _check_owner(self, store_id: str) -> None:
        for path in (self._manifest, self._next_manifest):
            if path.exists() and (other := _read_manifest(path).store_id) != store_id:
                msg = f"{self.directory} contains the backup of another store ({other}): name another directory"
                raise ConflictError(msg)


def find_store(directory: Path) -> Path:
    """Return the store at a directory: the directory itself, or the store in it if the directory is a backup.

    Raises:
        NotFoundError: the directory is neither a store nor a backup.
        StoreFormatError: the directory is a backup that is not complete.
    """
    if is_store(Layout(directory)):
        return directory
    backup = BackupDirectory(directory, Disk())
    try:
        backup.read()
    except NotFoundError as error:
        msg = (
            f"{directory} is neither a store nor a backup: name a directory that `mlflow-ipfs backup` has written, "
            "or a store, which is a directory with a format.json"
        )
        raise NotFoundError(msg) from error
    return backup.store


def _read_manifest(path: Path) -> Manifest:
    if status_of(path) is None:
        msg = f"the backup's manifest {path} is damaged (it is not a regular file): use another backup"
        raise StoreFormatError(msg)
    try:
        with path.open("rb") as file:
            fields: dict[str, Any] = json.loads(file.read(_MAX_MANIFEST_BYTES))
        number = fields["format"]
        if type(number) is int and number > FORMAT:
            msg = (
                f"{path} has format {number!s:.20}, and this version reads formats up to {FORMAT}: upgrade mlflow-ipfs"
            )
            raise StoreFormatError(msg)
        return _manifest_of(fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        msg = f"the backup's manifest {path} is damaged ({error!r:.200}): use another backup"
        raise StoreFormatError(msg) from error


def _manifest_of(fields: dict[str, Any]) -> Manifest:
    """Return a manifest with the fields that this version knows.

    Raises:
        ValueError, KeyError: a field is missing, or has a value that no backup has.
    """
    manifest = Manifest(**{name: fields[name] for name in Manifest.__slots__ if name in fields})
    for name, kind in _KINDS.items():
        if not _is_plausible(getattr(manifest, name), kind):
            raise ValueError(name, getattr(manifest, name))
    if fields["database"] not in {None, *FILES} or not manifest.store_id:
        raise ValueError(fields["database"], manifest.store_id)
    if not all(_is_outside_group(group) for group in manifest.outside_artifacts):
        raise ValueError(manifest.outside_artifacts)
    return manifest


def _is_outside_group(group: object) -> bool:
    if not isinstance(group, dict) or group.keys() != _OUTSIDE_KINDS.keys():
        return False
    plausible = all(_is_plausible(group[name], kind) for name, kind in _OUTSIDE_KINDS.items())
    return plausible and all(_is_plausible(example, str) for example in group["examples"])


def _is_plausible(value: object, kind: type) -> bool:
    if type(value) is not kind:
        return False
    return value.isprintable() if isinstance(value, str) else not isinstance(value, int) or value >= 0
