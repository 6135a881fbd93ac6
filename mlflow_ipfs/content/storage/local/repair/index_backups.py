"""Copies of the index, below ``backup``: after each gc, and when a store is closed that has none of the last day.

Files can be looked through again; pins, refs, ``mfs://`` entries and inline blocks stand in the
index alone. A copy is one consistent state, made by SQLite while others go on writing.
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
_FORM: Final = "store-%Y%m%dT%H%M%SZ.db"
_SPARE: Final = 4  # times the size of the index: with less room than that no copy is made


def list_backups(layout: Layout) -> list[Path]:
    """The copies, newest first."""
    return sorted(layout.backup.glob("store-*.db"), reverse=True)


def make_backup_if_due(context: StoreContext) -> Path | None:
    """Make a copy unless there is one of the last day. Never fails: a missing copy is only logged."""
    newest = next(iter(list_backups(context.layout)), None)
    if newest is not None and 0 <= time.time() - newest.stat().st_mtime < DUE_SECONDS:
        return None
    return make_backup(context)


def make_backup(context: StoreContext) -> Path | None:
    """Copy the index durably, then drop all but the newest copies. Never fails: a missing copy is only logged."""
    layout, disk = context.layout, context.disk
    try:
        if disk.free_bytes(layout.directory) < _SPARE * layout.database.stat().st_size:
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
    """Return a name with the time, but later than that of every copy: a clock may have been set back."""
    now = time.strftime(_FORM, time.gmtime())
    for copy in list_backups(layout)[:1]:
        with suppress(ValueError):
            newest = calendar.timegm(time.strptime(copy.name, _FORM))
            now = max(now, time.strftime(_FORM, time.gmtime(newest + 1)))
    return now


def _copy(context: StoreContext, draft: Path) -> None:
    disk = context.disk
    with context.database.snapshot() as source:  # else each write of another connection would begin the copy anew
        descriptor = disk.copy_database(source, draft)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
