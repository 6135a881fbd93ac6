"""What goes wrong where content is written to, told with the name that the user knows: never with a draft's."""

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
_IN_THE_WAY: Final = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP)


@contextmanager
def translate_destination_errors(target: Path) -> Iterator[None]:
    """Translate what the system says while ``target`` is made, or a draft of it in the same directory.

    Errors that name other files, as those of the store do, come through as they are.

    Raises:
        InvalidPathError: something is in the way, was removed meanwhile, or the disk does not take the name.
        StoreFullError: no room at the destination.
        OSError: anything else, with ``target`` as its file.
    """
    if "\0" in str(target):
        msg = f"{str(target)!r} cannot be made: no name may have a NUL in it"
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
    """The error in our words; None if it is not about the target."""
    if error.errno in _FULL:
        return StoreFullError(f"no room left on the disk of {str(target)!r}")
    if error.errno in _BAD_NAME:
        return InvalidPathError(
            f"{str(target)!r} cannot be made: this disk does not take such a name, or such a long path"
        )
    if not _is_about(error, target):
        return None
    if error.errno in _IN_THE_WAY:
        return InvalidPathError(f"{str(target)!r} cannot be made: {_obstacle(target)}")
    return OSError(error.errno, error.strerror, str(target))


def _is_about(error: OSError, target: Path) -> bool:
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(name.is_relative_to(target.parent) or target.is_relative_to(name) for name in names)


def _obstacle(target: Path) -> str:
    parent = target.parent
    if os.path.isdir(parent):
        if os.path.isdir(target):
            return "a directory of that name is there"
        return f"in the directory {str(parent)!r} something was removed or replaced meanwhile, or it takes no new names"
    there = next((path for path in (parent, *parent.parents) if os.path.lexists(path)), parent)
    if os.path.lexists(there) and not os.path.isdir(there):
        return f"{str(there)!r} is no directory"
    return f"there is no directory {str(parent)!r}, or not any more"
