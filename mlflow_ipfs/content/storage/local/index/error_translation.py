"""From the errors of the system and of SQLite to ours, with what to do about them."""

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
_NO_ROOM_BYTES: Final = 1 << 20  # SQLite says only "I/O error" when its shared memory file can't grow


@contextmanager
def translate_disk_errors(directory: Path) -> Iterator[None]:
    """Translate what the system says while a store is read or written; other errors pass.

    Raises:
        StoreFullError: the disk has no room left.
        PolicyError: this user may not read or write something in the store.
    """
    with translate_access_errors(directory), full_disk_faults(directory):
        yield


@contextmanager
def full_disk_faults(directory: Path) -> Iterator[None]:
    """Turn "no space left" into ``StoreFullError``; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise full_disk(directory) from error
        raise


@contextmanager
def translate_database_errors(layout: Layout) -> Iterator[None]:
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
        if isinstance(error, PermissionError) and not isinstance(error, MlflowIpfsError):
            return refused(layout.directory, error)
        return full_disk(layout.directory) if error.errno in FULL_DISK_ERRORS else None
    if isinstance(error, sqlite3.OperationalError):
        return _operational(layout, error)
    if type(error) is sqlite3.DatabaseError:  # its subclasses are errors in our own code
        msg = f"the index {layout.database} is damaged ({error}): {how_to_restore(layout)}"
        return StoreFormatError(msg)
    return None


def _operational(layout: Layout, error: sqlite3.OperationalError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # absent where the error is the Python module's own
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        msg = f"another program keeps {layout.database} locked ({error}): end it, and try again"
        return StoreBusyError(msg)
    if code == sqlite3.SQLITE_FULL:
        return full_disk(layout.directory)
    if not layout.database.exists():
        return store_is_gone(layout)
    forbidden = _forbidden_index_file(layout) if code in _ACCESS_CODES else None
    if forbidden is not None:
        return no_access(layout.directory, forbidden)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and free_bytes(layout.directory) < _NO_ROOM_BYTES:
        return full_disk(layout.directory)
    msg = (
        f"the index {layout.database} cannot be used: {error}. If that is no passing trouble, {how_to_restore(layout)}"
    )
    return StoreFormatError(msg)


def _forbidden_index_file(layout: Layout) -> Path | None:
    """A file of the index, or the directory around it, that this user may not use; SQLite does not say which."""
    for path in (layout.directory, layout.database, *layout.logs):
        with suppress(FileNotFoundError):
            if not is_usable(path, path.stat()):
                return path
    return None


def how_to_restore(layout: Layout) -> str:
    """What to do about an index that can't be used."""
    command = f"mlflow-ipfs --store {shlex.quote(str(layout.directory))} doctor --rebuild"
    what = f"end every program that uses the store, and run `{command}`"
    return f"{what}: it makes a new one from the store's files, from what is left of the old one and from its backups"


def store_is_gone(layout: Layout) -> StoreFormatError:
    """The error for a store that went away, or became another one, while it was open."""
    msg = (
        f"the store {layout.directory} was moved, deleted or replaced while this program had it open; nothing was "
        "written. Put it back, or start this program anew"
    )
    return StoreFormatError(msg)


def full_disk(directory: Path) -> StoreFullError:
    """The error that names the disk and what is free on it."""
    msg = (
        f"the disk under the store {directory} is full ({free_bytes(directory)} bytes free); what was being written is not kept. "
        "Make room, or let go of what nothing needs: `mlflow-ipfs gc --grace 0`"
    )
    return StoreFullError(msg)
