"""Files and directories at a destination: made, replaced in one step, given their metadata.

Nothing is written through a symlink, and a file appears under its name only when it is complete.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.system.destination_errors import translate_destination_errors
from mlflow_ipfs.errors import InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.codecs.unixfs import UnixFSData

_RESTORED_MODE: Final = 0o777  # never set-uid, set-gid or sticky: content does not grant rights


def make_directory(target: Path, *, parents: bool) -> None:
    """Make a directory, unless it is there already.

    Args:
        target: its path.
        parents: make the directories above it, too.

    Raises:
        InvalidPathError: something else is in the way, a symlink to a directory included.
    """
    with translate_destination_errors(target):
        try:
            target.mkdir(parents=parents)
        except FileExistsError:
            if not _is_directory(target):
                msg = f"{str(target)!r} is in the way: it is no directory, and the content has a directory of that name"
                raise InvalidPathError(msg) from None


def finish_directory(target: Path, data: UnixFSData) -> None:
    """Give a directory its recorded mode and time. Comes last, because writing into it changes its time.

    Raises:
        InvalidPathError: it was removed or replaced meanwhile.
    """
    with translate_destination_errors(target):
        if not _is_directory(target):  # a symlink would take the mode and the time to what it leads to
            msg = f"{str(target)!r} was removed or replaced while it was filled"
            raise InvalidPathError(msg)
        _restore_metadata(target, data)


@contextmanager
def replacing(target: Path, data: UnixFSData, *, parents: bool) -> Iterator[Path]:
    """Yield a free name beside the target. What the block makes there takes the target's place in one step.

    Args:
        target: path of the file or symlink; an existing one is replaced.
        data: has the mode and the time to record.
        parents: make the directories above it first.

    Raises:
        InvalidPathError: a directory is there, or something above it is in the way.
        StoreFullError: no room at the destination.
    """
    with translate_destination_errors(target):
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        if _is_directory(target):
            msg = f"{str(target)!r} is a directory, and the content has a file of that name"
            raise InvalidPathError(msg)
        # That the name is free is seen when it is taken: with O_EXCL, or by an operation that fails if it exists.
        temporary = target.with_name(f".mlflow-ipfs-{secrets.token_hex(8)}")
        try:
            yield temporary
            _restore_metadata(temporary, data)
            os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError, NotADirectoryError):  # its directory may be gone, too
                temporary.unlink()
            raise


def _is_directory(target: Path) -> bool:
    """Whether a directory is there itself, and not a symlink to one."""
    try:
        return stat.S_ISDIR(os.lstat(target).st_mode)
    except FileNotFoundError:
        return False


def _restore_metadata(target: Path, data: UnixFSData) -> None:
    is_symlink = data.type is NodeType.SYMLINK
    if data.mode is not None and not is_symlink:
        target.chmod(data.mode & _RESTORED_MODE)
    if data.mtime_ns is not None:
        os.utime(target, ns=(data.mtime_ns, data.mtime_ns), follow_symlinks=not is_symlink)
