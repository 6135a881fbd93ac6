"""Translation of operating system and SQLite errors into the package's errors, with the remedy in the message."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.system.access import is_usable, no_access, refused, translate_access_errors
from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS, free_bytes
from mlflow_ipfs.errors import MlflowIpfsError, StoreBusyError, StoreFormatError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout

_ACCESS_CODES: Final = (
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR
)  # fmt: skip
_MIN_FREE_BYTES: Final = 1 << 20  # if its shared memory file cannot grow, SQLite reports only "I/O error"


@contextmanager
def translate_disk_errors(directory: Path) -> Iterator[None]:
    """Translate operating system errors raised while a store is read or written. Other errors pass unchanged.

    Raises:
        StoreFullError: the disk is full.
        PolicyError: this user may not read or write a file of the store.
    """
    with translate_access_errors(directory), translate_full_disk_errors(directory):
        yield


@contextmanager
def translate_full_disk_errors(directory: Path) -> Iterator[None]:
    """Translate "no space left" into ``StoreFullError``. Other errors pass unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise full_disk(directory) from error
        raise


@contextmanager
def translate_database_errors(layout: Layout) -> Iterator[None]:
    """Translate SQLite's errors into the package's errors."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        explained = explain(layout, error)
        if explained is not None:
            raise explained from error
        raise


def explain(layout: Layout, error: BaseException | None) -> Exception | None:
    """Return the package's error for an error of SQLite or the operating system; None if the original is best."""
    if isinstance(error, OSError):
        if isinstance(error, PermissionError) and not isinstance(error, MlflowIpfsError):
            return refused(layout.directory, error)
        return full_disk(layout.directory) if error.errno in FULL_DISK_ERRORS else None
    if isinstance(error, sqlite3.OperationalError):
        return _explain_operational(layout, error)
    if type(error) is sqlite3.DatabaseError:  # its subclasses report errors in this package's code
        msg = f"the index {layout.database} is damaged ({error}): {how_to_restore(layout)}"
        return StoreFormatError(msg)
    return None


def _explain_operational(layout: Layout, error: sqlite3.OperationalError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # absent if the Python module itself raised the error
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        msg = f"another program keeps {layout.database} locked ({error}): wait for it or end it, and try again"
        return StoreBusyError(msg)
    if code == sqlite3.SQLITE_FULL:
        return full_disk(layout.directory)
    if not layout.database.exists():
        return store_is_gone(layout)
    inaccessible = _inaccessible_index_file(layout) if code in _ACCESS_CODES else None
    if inaccessible is not None:
        return no_access(layout.directory, inaccessible)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and free_bytes(layout.directory) < _MIN_FREE_BYTES:
        return full_disk(layout.directory)
    msg = f"the index {layout.database} cannot be used: {error}. If the error persists, {how_to_restore(layout)}"
    return StoreFormatError(msg)


def _inaccessible_index_file(layout: Layout) -> Path | None:
    """Return an index file, or the directory around it, that this user may not use. SQLite does not report the path."""
    for path in (layout.directory, layout.database, *layout.logs):
        with suppress(FileNotFoundError):
            if not is_usable(path, path.stat()):
                return path
    return None


def how_to_restore(layout: Layout) -> str:
    """Return the instructions for a user whose index cannot be used."""
    command = f"mlflow-ipfs --store {shlex.quote(str(layout.directory))} doctor --rebuild"
    steps = f"end every program that uses the store, and run `{command}`"
    return f"{steps}. It makes a new index from the store's files, the remains of the old index and its backups"


def store_is_gone(layout: Layout) -> StoreFormatError:
    """Return the error for a store that was moved, deleted or replaced while it was open."""
    msg = (
        f"the store {layout.directory} was moved, deleted or replaced while this program had it open; nothing was "
        "written. Put the store back, or restart this program"
    )
    return StoreFormatError(msg)


def full_disk(directory: Path) -> StoreFullError:
    """Return the error for a full disk, with the number of free bytes on it."""
    msg = (
        f"the disk of {directory} is full ({free_bytes(directory)} bytes free); what was being written is not kept. "
        "Free some space, or delete content that no name needs: `mlflow-ipfs gc --grace 0`"
    )
    return StoreFullError(msg)
