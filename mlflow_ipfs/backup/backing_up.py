"""Backups of MLflow's database and the store together. ``restoring.py`` restores them."""

from __future__ import annotations

import importlib.metadata
import platform
import sqlite3
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.backup.backup_directory import BackupDirectory, Manifest
from mlflow_ipfs.backup.database_copies import DatabaseCopy, open_copy, sqlite_file
from mlflow_ipfs.backup.restoring import restore_backup
from mlflow_ipfs.binding.artifacts.outside_artifacts import OutsideGroup, describe, find_outside_artifacts
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.storage.local.backup import (
    BackupWriter,
    Layout,
    NullParticipant,
    is_store,
    real_path,
    translate_copy_errors,
)
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import IntegrityError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import URL

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.backup import BackupReport
    from mlflow_ipfs.content.store import ContentStore

__all__ = ["make_backup", "restore_backup"]

_MAX_GROUPS_SHOWN: Final = 5  # in an error message, which is one line


def make_backup(
    store: ContentStore,
    directory: Path,
    database: URL | None,
    *,
    verify: bool = True,
    timeout_seconds: float,
    progress: Callable[[int], None] | None = None,
    accept_outside: Callable[[Sequence[OutsideGroup]], bool] | None = None,
    disk: Disk | None = None,
) -> tuple[Manifest, BackupReport]:
    """Copy a store and MLflow's database in one consistent state, while both stay in use.

    Args:
        store: the store.
        directory: the directory of the backup: new, empty, or with an earlier backup of this store.
        database: MLflow's database; None to copy the store alone.
        verify: hash the copied files.
        timeout_seconds: how long to wait for another backup into the directory, and for programs that lock the database
            while it is read before anything is copied.
        progress: called with the number of bytes copied or hashed since its last call.
        accept_outside: called before anything is copied, if the database names artifacts that the store does not
            contain. If it returns True, the backup is made without them and records what it lacks. None: refuse, with
            an error that lists them.
        disk: performs every operation on the backup's disk; for tests.

    Returns:
        The manifest of the backup, and a report of what was copied.

    Raises:
        ConflictError: the directory contains other files, or the backup of another store.
        PolicyError: the directory cannot hold this backup, or the database names artifacts outside the store.
            Nothing was copied.
        NotFoundError, SettingsError: the database does not exist or cannot be copied.
        StoreBusyError: another program locked the database or the store for too long.
        StoreFullError: the disk that the message names is full.
        IntegrityError: the backup's disk does not return the bytes that were written to it. Or the previous backup in
            the directory has a whole copy of content that is damaged in the store, and the store could not be healed.
    """
    storage = _local(store)
    backup = BackupDirectory(real_path(directory), disk or Disk())
    _refuse_overlap(backup.directory, storage.directory, database)
    with translate_copy_errors(backup.directory), ExitStack() as stack:
        copy: DatabaseCopy | None = None
        outside: tuple[OutsideGroup, ...] = ()
        backup.check(storage.store_id)  # every check comes before the first write
        if database is not None:
            copy = stack.enter_context(
                closing(open_copy(database, backup.next, backup.disk, storage.make_view_directory()))
            )
            outside = find_outside_artifacts(database, store, timeout_seconds=timeout_seconds)
            if outside and not (accept_outside and accept_outside(outside)):
                raise _incomplete(backup.directory, () if accept_outside else outside)
        stack.enter_context(backup.writing(storage.store_id, timeout_seconds=timeout_seconds))
        _heal_from_previous(storage, backup)
        writer = BackupWriter(backup.disk, backup.store, backup.next, progress)
        report = storage.back_up(writer, copy or NullParticipant(), verify=verify)
        manifest = _describe(storage, report, copy, outside, verify=verify)
        backup.switch(manifest)
    return manifest, report


def _heal_from_previous(storage: LocalStorage, backup: BackupDirectory) -> None:
    """Heal the known damage of the store from the previous backup, before the next backup replaces it.

    Raises:
        IntegrityError: the previous backup has a whole copy of damaged content, and the store could not be healed.
    """
    if not storage.has_known_damage() or not is_store(Layout(backup.store)):
        return
    with open_local_storage(backup.store, create=False, read_only=True) as previous:
        for cid, reason in storage.heal_known_damage(previous.blocks).problems:
            if _has_whole(previous, cid):
                msg = (
                    f"{reason}. The backup {backup.directory} has an undamaged copy and was not changed: "
                    f"run `mlflow-ipfs scrub --heal-from {backup.directory}`, then back up again"
                )
                raise IntegrityError(msg)


def _has_whole(storage: LocalStorage, cid: CID) -> bool:
    try:
        return bool(storage.file_path(cid) or storage.blocks.get(cid))
    except (OSError, ValueError):  # missing or damaged in that store, too
        return False


def _local(store: ContentStore) -> LocalStorage:
    if not isinstance(store.storage, LocalStorage):
        msg = "only a local store can be backed up: name the directory of one with --store"
        raise PolicyError(msg)
    return store.storage


def _refuse_overlap(directory: Path, store: Path, database: URL | None) -> None:
    store = real_path(store)
    if directory.is_relative_to(store) or store.is_relative_to(directory):
        msg = (
            f"the backup directory {directory} and the store {store} overlap: name a separate directory for the "
            "backup, preferably on another disk"
        )
        raise PolicyError(msg)
    if database is not None and database.get_backend_name() == "sqlite":
        file = real_path(sqlite_file(database))
        if file.is_relative_to(directory):
            msg = (
                f"MLflow's database {file} is inside the backup directory {directory}: name a separate directory for "
                "the backup"
            )
            raise PolicyError(msg)


def _incomplete(directory: Path, listed: Sequence[OutsideGroup]) -> PolicyError:
    """Return the error for a database that names artifacts outside the store, which lists groups of them."""
    shown = "; ".join(describe(group) for group in listed[:_MAX_GROUPS_SHOWN])
    more = f"; and {len(listed) - _MAX_GROUPS_SHOWN} more locations" if len(listed) > _MAX_GROUPS_SHOWN else ""
    groups = f" ({shown}{more})" if listed else ""
    msg = (
        f"nothing was copied to {directory}: MLflow's database names artifacts that are not in the store, so the backup "
        f"would lack them{groups}. Take them into the store with `mlflow-ipfs adopt`; or back up those locations by "
        "other means, and run the backup again with --without-outside-artifacts. If these artifacts should be in the "
        "store, check that --store names the store of this database. For mlflow-artifacts: locations set "
        "MLFLOW_ARTIFACTS_DESTINATION as the server has it"
    )
    return PolicyError(msg)


def _describe(
    storage: LocalStorage,
    report: BackupReport,
    copy: DatabaseCopy | None,
    outside: Sequence[OutsideGroup],
    *,
    verify: bool,
) -> Manifest:
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
        outside_artifacts=[
            {"kind": group.kind, "place": group.place, "count": group.count, "examples": list(group.examples)}
            for group in outside
        ],
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
