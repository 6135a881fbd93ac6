"""Backups of the index, in the store's directory ``backup``.

A backup is made after each gc, and when a store is closed whose newest backup is older than a day. Rows of blocks in
files can be found again by a scan of the files. Pins, refs, ``mfs://`` entries and inline blocks are stored only in the
index. A backup is one consistent state, which SQLite copies without blocking writers.
"""

from __future__ import annotations

import calendar
import logging
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_logger = logging.getLogger(__name__)

KEPT: Final = 3
DUE_SECONDS: Final = 24 * 3600
_NAME_FORMAT: Final = "store-%Y%m%dT%H%M%SZ.db"
_MIN_FREE_FACTOR: Final = 4  # times the size of the index: with less free space no backup is made


def list_backups(layout: Layout) -> list[Path]:
    """Return the backups, newest first."""
    return sorted(layout.backup.glob("store-*.db"), reverse=True)


def make_backup_if_due(context: StoreContext) -> Path | None:
    """Make a backup if the newest one is older than a day. A failure is only logged.

    Returns:
        The backup; None if none was made.
    """
    newest = next(iter(list_backups(context.layout)), None)
    if newest is not None and 0 <= time.time() - newest.stat().st_mtime < DUE_SECONDS:
        return None
    return make_backup(context)


def make_backup(context: StoreContext) -> Path | None:
    """Copy the index durably, then remove all but the newest backups. A failure is only logged.

    Returns:
        The backup; None if none was made.
    """
    layout, disk = context.layout, context.disk
    try:
        if disk.free_bytes(layout.directory) < _MIN_FREE_FACTOR * layout.database.stat().st_size:
            _logger.warning("no backup of %s was made: the disk is nearly full", layout.database)
            return None
        backup = layout.backup / next_backup_name(layout)
        draft = context.session.draft()
        try:
            _copy(context, draft)
            disk.rename(draft, backup)
        finally:
            disk.remove(draft)
        disk.sync_directory(layout.backup)
        for old in list_backups(layout)[KEPT:]:
            disk.remove(old)
    except (OSError, sqlite3.Error, MlflowIpfsError) as error:
        _logger.warning("no backup of %s was made: %s", layout.database, error)
        return None
    else:
        return backup


def next_backup_name(layout: Layout) -> str:
    """Return a name with the current time, or a later one if the clock was set back: it sorts after all backups."""
    name = time.strftime(_NAME_FORMAT, time.gmtime())
    for backup in list_backups(layout)[:1]:
        with suppress(ValueError):
            newest = calendar.timegm(time.strptime(backup.name, _NAME_FORMAT))
            name = max(name, time.strftime(_NAME_FORMAT, time.gmtime(newest + 1)))
    return name


def _copy(context: StoreContext, draft: Path) -> None:
    disk = context.disk
    # Without a snapshot, SQLite would restart the copy at each write of another connection.
    with context.database.snapshot() as source:
        descriptor = disk.copy_database(source, draft)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
