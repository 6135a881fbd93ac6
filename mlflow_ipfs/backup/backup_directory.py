"""The directory of a backup: what is in it, and how a new backup takes the place of the former one.

::

    backup.json   says what the backup is; not there, or not complete: no backup yet
    mlflow.db     the copy of MLflow's database; mlflow.dump for PostgreSQL
    store/        the copy of the store, itself a store
    next/         what becomes the next backup; with a backup.json in it, it is the backup already
    backup.lock   held by the one backup that runs

Several files make a backup, and only one rename at a time is atomic. So the new files are made
durable below ``next``, a ``backup.json`` beside them decides, and then each goes to its place: by
whoever comes first, should this process die. Who only reads takes what is in ``next`` from there.
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
    install,
    is_store,
    make_lock_file,
    make_real_directory,
    refuse_used,
    remove_unnamed,
    status_of,
)
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.content.system.locking import FileLock
from mlflow_ipfs.errors import NotFoundError, PolicyError, StoreFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


FORMAT: Final = 1
_LONGEST_MANIFEST: Final = 1 << 20
_KINDS: Final[dict[str, type]] = {
    "store_id": str, "taken_at": str, "finished_at": str, "verified": bool, "problems": int, "files": int,
    "size_bytes": int, "versions": dict, "complete": bool, "format": int,
    "outside_artifacts": list,
}  # fmt: skip
_OUTSIDE_KINDS: Final[dict[str, type]] = {"kind": str, "place": str, "count": int, "examples": list}
_LOST_AND_FOUND: Final = "lost+found"  # at the top of every ext4 disk


@dataclass(frozen=True, slots=True)
class Manifest:
    """``backup.json``.

    Attributes:
        store_id: of the store that was copied.
        taken_at: the moment that the backup shows; ISO 8601, UTC.
        finished_at: when it was complete.
        database: the file with MLflow's database; None: the store alone.
        verified: whether what was copied was hashed.
        problems: how many blocks or files the store itself had lost.
        files: how many files the store has.
        size_bytes: how large they are.
        versions: of the programs that made it.
        complete: false until the first backup is.
        outside_artifacts: what the database names and this backup does not contain: ``kind``, ``place``, ``count`` and
            ``examples`` of each group. Missing in backups of older versions, which did not look.
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
        """As it is written."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True, slots=True)
class BackupDirectory:
    """One backup.

    Args:
        directory: an absolute path without links.
        disk: takes every step.
    """

    directory: Path
    disk: Disk

    @property
    def store(self) -> Path:
        """The copy of the store."""
        return self.directory / "store"

    @property
    def next(self) -> Path:
        """The next backup, and drafts."""
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
        """What the backup is.

        Raises:
            NotFoundError: there is none.
            StoreFormatError: it is not complete, of a newer format, or damaged; or a directory of it is a link.
        """
        for directory in (self.store, self.next, self.store / "files", self.store / "quarantine"):
            if os.path.lexists(directory) and not stat.S_ISDIR(directory.lstat().st_mode):
                msg = (
                    f"the backup {self.directory} is damaged: {directory} is a link or a file where a directory must be"
                )
                raise StoreFormatError(msg)
        path = self._next_manifest if self._next_manifest.exists() else self._manifest
        if not path.exists():
            msg = f"{self.directory} is no backup: it has no {self._manifest.name}{self._hint()}"
            raise NotFoundError(msg)
        manifest = _read_manifest(path)
        if not manifest.complete:
            msg = f"the backup {self.directory} is not complete: run `mlflow-ipfs backup` once more, it goes on from there"
            raise StoreFormatError(msg)
        return manifest

    def _hint(self) -> str:
        above = BackupDirectory(self.directory.parent, self.disk)
        is_part = above.store == self.directory and above._manifest.exists()
        return f"; it is part of the backup {above.directory}: name that" if is_part else ""

    def find(self, name: str) -> Path:
        """Where a file of the backup is: in its place, or still on the way to it.

        Raises:
            StoreFormatError: it isn't there, or is no file.
        """
        path = (self.store if name == INDEX else self.directory) / name
        if self._next_manifest.exists() and os.path.lexists(self.next / name):
            path = self.next / name
        if status_of(path) is None:
            msg = f"the backup {self.directory} is damaged: {path} is missing, or is no file"
            raise StoreFormatError(msg)
        return path

    def check(self, store_id: str) -> None:
        """Refuse a directory in which a backup of a store can't be made. Makes and changes nothing.

        Raises:
            PolicyError: the directory holds something else, or the backup of another store.
            StoreFormatError: a newer backup, or a damaged one.
        """
        if self.directory.exists():
            self._refuse_foreign()
            self._check_owner(store_id)

    @contextmanager
    def writing(self, store_id: str, *, timeout_seconds: float) -> Iterator[None]:
        """Make the directory ready for the next backup of a store, for the length of a ``with``.

        Raises:
            PolicyError: the directory holds something else, or the backup of another store.
            StoreFormatError: a newer backup, or a damaged one.
            StoreBusyError: another backup is being made there, or somebody has the copied store open.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refuse_foreign()
        make_lock_file(self._lock)
        with FileLock(self._lock, timeout_seconds=timeout_seconds, purpose="is making a backup").exclusive():
            self._check_owner(store_id)
            self._finish_former()
            if not self._manifest.exists():  # before anything else: it says that this is ours, and not complete
                self.disk.write_file(self._manifest, Manifest(store_id).encode())
            self.disk.remove_tree(self.next)
            for directory in (self.store, self.next):
                make_real_directory(self.disk, directory)
            try:
                yield
            except BaseException:
                if not self._next_manifest.exists():
                    self.disk.remove_tree(self.next)  # drafts; whole files stay where they are, for the next attempt
                raise

    def switch(self, manifest: Manifest) -> None:
        """Let what is in ``next`` be the backup from now on, and drop what only the former one needed.

        Raises:
            StoreBusyError: somebody has opened the copied store meanwhile; nothing was switched.
        """
        refuse_used(self.store)
        self.disk.sync_directory(self.next)
        self.disk.write_file(self._next_manifest, manifest.encode())
        self._finish_former()

    def _finish_former(self) -> None:
        """Move a decided backup into its place. Safe to be broken off, and to be done again."""
        if not self._next_manifest.exists():
            return
        refuse_used(self.store)
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
            msg = f"{self.directory} is not empty, and no backup: name a new or an empty directory"
            raise PolicyError(msg)
        for path in (self._lock, self._manifest, self.store, self.next):
            if path.is_symlink():
                msg = f"{path} is a link; nothing is written through it. Remove it"
                raise PolicyError(msg)

    def _check_owner(self, store_id: str) -> None:
        for path in (self._manifest, self._next_manifest):
            if path.exists() and (other := _read_manifest(path).store_id) != store_id:
                msg = f"{self.directory} is the backup of another store ({other}): name a directory of its own for this one"
                raise PolicyError(msg)


def find_store(directory: Path) -> Path:
    """The store to read that somebody means with a directory: the directory itself, or, if that is a backup, the store in it.

    Raises:
        NotFoundError: it is neither.
        StoreFormatError: it is a backup that is not complete.
    """
    if is_store(Layout(directory)):
        return directory
    backup = BackupDirectory(directory, Disk())
    try:
        backup.read()
    except NotFoundError as error:
        msg = (
            f"there is no store at {directory}, and no backup: name a directory that `mlflow-ipfs backup` has written, "
            "or a store, which is a directory with a format.json"
        )
        raise NotFoundError(msg) from error
    return backup.store


def _read_manifest(path: Path) -> Manifest:
    if status_of(path) is None:
        msg = f"{path} is no file, so it does not describe a backup"
        raise StoreFormatError(msg)
    try:
        with path.open("rb") as file:
            fields: dict[str, Any] = json.loads(file.read(_LONGEST_MANIFEST))
        number = fields["format"]
        if type(number) is int and number > FORMAT:
            msg = f"{path} has format {number!s:.20}, and this program knows {FORMAT}: upgrade mlflow-ipfs"
            raise StoreFormatError(msg)
        return _manifest_of(fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        msg = f"{path} does not describe a backup ({error!r:.200})"
        raise StoreFormatError(msg) from error


def _manifest_of(fields: dict[str, Any]) -> Manifest:
    """The fields that this version knows.

    Raises:
        ValueError, KeyError: one has a value that no backup has, or is missing.
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
