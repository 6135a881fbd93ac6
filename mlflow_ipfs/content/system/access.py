"""Errors for files that this user may not read or write. They name the owner and the command that grants access."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import MlflowIpfsError, PolicyError

if sys.platform != "win32":
    import grp
    import pwd

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEALED_DEPTH: Final = 3  # files/f9/<name>: path components of the store's objects and packs


@contextmanager
def translate_access_errors(directory: Path) -> Iterator[None]:
    """Translate ``PermissionError`` into an error that names the path and the remedy. Other errors pass unchanged.

    Args:
        directory: the directory of the store, or another directory whose owner should own everything in it.

    Raises:
        PolicyError: this user may not read or write a file or directory.
    """
    try:
        yield
    except MlflowIpfsError:
        raise
    except PermissionError as error:
        raise refused(directory, error) from error


def refused(directory: Path, error: PermissionError) -> PolicyError:
    """Return the error for a ``PermissionError``.

    Args:
        directory: as for ``translate_access_errors``.
        error: the error of the operating system.
    """
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    paths = [Path(os.fsdecode(name)) for name in names] or [directory]
    obstacle = next((found for path in paths if (found := _obstacle(path)) is not None), paths[0])
    return no_access(directory, obstacle)


def no_access(directory: Path, path: Path) -> PolicyError:
    """Return the error for a path that this user may not use.

    Args:
        directory: the directory of the store.
        path: the file or directory.
    """
    user = user_name(os.geteuid())
    return PolicyError(f"user {user} may not read or write {path}{_owner_and_mode(path)}: {remedy(directory, path)}")


def remedy(directory: Path, path: Path) -> str:
    """Return what the user must do so that the owner of a directory can use a path in it."""
    owner, status = _status(directory.resolve()), _status(path)
    if owner is None or status is None:
        return "let this user read and write there, or run the command as its owner"
    if status.st_uid != owner.st_uid:
        return f"give everything in the directory to its owner, `{chown_command(directory)}`"
    if status.st_uid == os.geteuid() or os.geteuid() == 0:
        return f"let its owner use it, `chmod {_missing_bits(directory, path, status)} {shlex.quote(str(path))}`"
    return f"run the command as user {user_name(owner.st_uid)}, the owner"


def _missing_bits(directory: Path, path: Path, status: os.stat_result) -> str:
    """Return the permission bits that a store needs on a path.

    Sealed files stay read-only, because other files may share their bytes.
    """
    if stat.S_ISDIR(status.st_mode):
        return "u+rwx"
    is_sealed = path.is_relative_to(directory) and len(path.relative_to(directory).parts) == _SEALED_DEPTH
    return "u+r" if is_sealed else "u+rw"


def chown_command(directory: Path) -> str:
    """Return the shell command that gives everything in a directory to the owner of the directory."""
    return f"sudo chown -R {owner_of(directory)} {shlex.quote(str(directory))}"


def is_usable(path: Path, status: os.stat_result, *, read_only: bool = False) -> bool:
    """Return whether this user has the permissions on a file or directory that a store needs.

    Args:
        path: the file or directory.
        status: the status of the path.
        read_only: whether the store is on a read-only mount, so that write permission is not needed.
    """
    needed = os.R_OK
    if stat.S_ISDIR(status.st_mode):
        needed |= os.X_OK
    if not read_only and (stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWUSR):  # sealed files are only read
        needed |= os.W_OK
    return os.access(path, needed, effective_ids=os.access in os.supports_effective_ids)


def owner_of(path: Path) -> str:
    """Return the owner and the group of a path in the notation of ``chown``.

    Raises:
        OSError: the path does not exist.
    """
    return _owner(path.stat())


def _owner(status: os.stat_result) -> str:
    return f"{user_name(status.st_uid)}:{group_name(status.st_gid)}"


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if this system has no name for it."""
    if sys.platform != "win32":
        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
    return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a group, or the number if this system has no name for it."""
    if sys.platform != "win32":
        with suppress(KeyError):
            return grp.getgrgid(gid).gr_name
    return str(gid)


def _obstacle(path: Path) -> Path | None:
    """Return the path or its lowest existing parent if this user may not use it, else None."""
    for candidate in (path, *path.parents):
        status = _status(candidate)
        if status is not None and not is_usable(candidate, status):
            return candidate
        if status is not None and candidate != path:
            return None
    return None


def _owner_and_mode(path: Path) -> str:
    """Return the owner and the mode of a path in parentheses; the empty string if the path does not exist."""
    status = _status(path)
    if status is None:
        return ""
    return f" (owner {_owner(status)}, mode {stat.S_IMODE(status.st_mode):04o})"


def _status(path: Path) -> os.stat_result | None:
    """Return the result of ``lstat``, or None on an error."""
    with suppress(OSError):
        return path.lstat()
    return None
