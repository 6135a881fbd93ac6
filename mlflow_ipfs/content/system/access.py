"""What this user may not read or write, told with its owner and with the command that changes that."""

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

_SEALED_DEPTH: Final = 3  # files/f9/<name>, as the store has its objects and packs

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def translate_access_errors(directory: Path) -> Iterator[None]:
    """Turn a refusal of the system into our error, which names the path and the remedy. Other errors pass.

    Args:
        directory: the store's directory, or another one whose owner should own what is in it.

    Raises:
        PolicyError: this user may not read or write something.
    """
    try:
        yield
    except MlflowIpfsError:
        raise
    except PermissionError as error:
        raise refused(directory, error) from error


def refused(directory: Path, error: PermissionError) -> PolicyError:
    """Our error for a refusal of the system."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    paths = [Path(os.fsdecode(name)) for name in names] or [directory]
    obstacle = next((found for path in paths if (found := _obstacle(path)) is not None), paths[0])
    return no_access(directory, obstacle)


def no_access(directory: Path, path: Path) -> PolicyError:
    """The error for something that this user may not use.

    Args:
        directory: the store's directory.
        path: the file or directory.
    """
    user = user_name(os.geteuid())
    return PolicyError(f"user {user} may not read or write {path}{_in_brackets(path)}: {remedy(directory, path)}")


def remedy(directory: Path, path: Path) -> str:
    """What to do so that the owner of a directory can use a path in it."""
    owner, status = _status(directory.resolve()), _status(path)
    if owner is None or status is None:
        return "let this user read and write there, or run this as its owner"
    if status.st_uid != owner.st_uid:
        return f"give everything in the directory to its owner, `{chown_command(directory)}`"
    if status.st_uid == os.geteuid() or os.geteuid() == 0:
        return f"let its owner use it, `chmod {_missing_bits(directory, path, status)} {shlex.quote(str(path))}`"
    return f"run this as user {user_name(owner.st_uid)}, the owner"


def _missing_bits(directory: Path, path: Path, status: os.stat_result) -> str:
    """The bits that a store needs on a file or directory. What is sealed stays so: other files may share its bytes."""
    if stat.S_ISDIR(status.st_mode):
        return "u+rwx"
    is_sealed = path.is_relative_to(directory) and len(path.relative_to(directory).parts) == _SEALED_DEPTH
    return "u+r" if is_sealed else "u+rw"


def chown_command(directory: Path) -> str:
    """The command that gives a directory and everything in it to the owner of the directory."""
    return f"sudo chown -R {owner_of(directory)} {shlex.quote(str(directory))}"


def is_usable(path: Path, status: os.stat_result, *, read_only: bool = False) -> bool:
    """Tell whether this user can use a file or directory as a store needs it.

    Args:
        path: the file or directory.
        status: of it.
        read_only: nothing is to be written: the store is on a read-only mount.
    """
    needed = os.R_OK
    if stat.S_ISDIR(status.st_mode):
        needed |= os.X_OK
    if not read_only and (stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWUSR):  # what is sealed is only read
        needed |= os.W_OK
    return os.access(path, needed, effective_ids=os.access in os.supports_effective_ids)


def owner_of(path: Path) -> str:
    """The owner and the group of a file or directory, as `chown` takes them.

    Raises:
        OSError: nothing is there.
    """
    return _owner(path.stat())


def _owner(status: os.stat_result) -> str:
    return f"{user_name(status.st_uid)}:{group_name(status.st_gid)}"


def user_name(uid: int) -> str:
    """The name of a user; the number if it has none here."""
    if sys.platform != "win32":
        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
    return str(uid)


def group_name(gid: int) -> str:
    """The name of a group; the number if it has none here."""
    if sys.platform != "win32":
        with suppress(KeyError):
            return grp.getgrgid(gid).gr_name
    return str(gid)


def _obstacle(path: Path) -> Path | None:
    """What this user may not use: the path itself, or the lowest directory above it that is there."""
    for candidate in (path, *path.parents):
        status = _status(candidate)
        if status is not None and not is_usable(candidate, status):
            return candidate
        if status is not None and candidate != path:
            return None
    return None


def _in_brackets(path: Path) -> str:
    status = _status(path)
    if status is None:
        return ""
    return f" (of {_owner(status)}, mode {stat.S_IMODE(status.st_mode):04o})"


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.lstat()
    return None
