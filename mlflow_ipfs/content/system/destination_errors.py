"""Errors at a destination, translated to name the path that the user gave instead of a draft."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import InvalidPathError, MlflowIpfsError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_BAD_NAME: Final = (errno.ENAMETOOLONG, errno.EILSEQ)
_OBSTACLES: Final = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)


@contextmanager
def translate_destination_errors(target: Path) -> Iterator[None]:
    """Translate errors of the operating system during the creation of ``target`` or of a draft in the same directory.

    Errors that name other files, such as those of the store, pass unchanged.

    Raises:
        InvalidPathError: a path exists with another type, a path was removed meanwhile, or the name is invalid on this
            disk.
        StoreFullError: the disk of the destination is full.
        OSError: any other error, with ``target`` as its file name.
    """
    if "\0" in str(target):
        msg = f"{str(target)!r} cannot be created: a name must not contain a NUL character; use another name"
        raise InvalidPathError(msg)
    try:
        yield
    except MlflowIpfsError:
        raise
    except OSError as error:
        explained = _explain(error, target)
        if explained is None:
            raise
        raise explained from error


def _explain(error: OSError, target: Path) -> Exception | None:
    """Return the translated error, or None if the error is not about the target."""
    if error.errno in _FULL:
        return StoreFullError(f"no space left on the disk of {str(target)!r}; free some space or write to another disk")
    if error.errno in _BAD_NAME:
        return InvalidPathError(
            f"{str(target)!r} cannot be created: the name is invalid or the path too long on this disk; "
            "use another name or another disk"
        )
    if not _is_about(error, target):
        return None
    if error.errno in _OBSTACLES:
        return InvalidPathError(f"{str(target)!r} cannot be created: {_obstacle(target)}")
    return OSError(error.errno, error.strerror, str(target))


def _is_about(error: OSError, target: Path) -> bool:
    """Return whether an error names the target, a path in its directory, or a parent of it."""
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(name.is_relative_to(target.parent) or target.is_relative_to(name) for name in names)


def _obstacle(target: Path) -> str:
    """Return why a path cannot be created, and what to do."""
    parent = target.parent
    if os.path.isdir(parent):
        if os.path.isdir(target):
            return "a directory of that name exists; remove it or use another name"
        return (
            "a path in its directory was removed or replaced meanwhile, or the directory accepts no new names; "
            "try again or write to another directory"
        )
    existing = next((path for path in (parent, *parent.parents) if os.path.lexists(path)), parent)
    if os.path.lexists(existing) and not os.path.isdir(existing):
        return f"{str(existing)!r} is not a directory; write to another directory"
    return f"the directory {str(parent)!r} does not exist, or was removed meanwhile; create it"
