"""From the errors of the system and of SQLite to ours, with what to do about them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.local.disk import FULL_DISK_ERRORS
from mlflow_ipfs.errors import StoreBusyError, StoreFormatError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.local.layout import Layout

_NO_ROOM_BYTES: Final = 1 << 20  # SQLite says only "I/O error" when its shared memory file can't grow


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn "no space left" into ``StoreFullError``; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise full_disk(folder) from error
        raise


@contextmanager
def database_faults(layout: Layout) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        explained = explain(layout, error)
        if explained is not None:
            raise explained from error
        raise


def explain(layout: Layout, error: BaseException | None) -> Exception | None:
    """Our error for one of SQLite or of the system, or None if there is none better."""
    if isinstance(error, OSError):
        return full_disk(layout.folder) if error.errno in FULL_DISK_ERRORS else None
    if isinstance(error, sqlite3.OperationalError):
        return _operational(layout, error)
    if type(error) is sqlite3.DatabaseError:  # its subclasses are errors in our own code
        msg = f"the index {layout.database} is damaged ({error}): put back the newest copy from {layout.backup}"
        return StoreFormatError(msg)
    return None


def _operational(layout: Layout, error: sqlite3.OperationalError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # absent where the error is the Python module's own
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        msg = f"another program keeps {layout.database} locked ({error}): end it, and try again"
        return StoreBusyError(msg)
    if code == sqlite3.SQLITE_FULL:
        return full_disk(layout.folder)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _free_bytes(layout.folder) < _NO_ROOM_BYTES:
        return full_disk(layout.folder)
    msg = f"the index {layout.database} cannot be used: {error}"
    return StoreFormatError(msg)


def full_disk(folder: Path) -> StoreFullError:
    """The error that names the disk and what is free on it."""
    msg = (
        f"the disk under the store {folder} is full ({_free_bytes(folder)} bytes free); nothing was kept. "
        "Make room, or run `mlflow-ipfs gc`"
    )
    return StoreFullError(msg)


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
