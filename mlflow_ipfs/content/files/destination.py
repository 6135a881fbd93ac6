"""Creation and atomic replacement of files and directories at an export destination, with their metadata.

These functions never write through a symlink. A file appears under its name only when it is complete.
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

_RESTORED_MODE: Final = 0o777  # never set-uid, set-gid or sticky: content must not grant privileges


def make_directory(target: Path, *, parents: bool) -> None:
    """Create a directory unless it exists.

    Args:
        target: path of the directory.
        parents: also create missing parent directories.

    Raises:
        InvalidPathError: the path exists and is not a directory. A symlink to a directory is not accepted.
    """
    with translate_destination_errors(target):
        try:
            target.mkdir(parents=parents)
        except FileExistsError:
            if not _is_directory(target):
                msg = (
                    f"{str(target)!r} exists and is not a directory, but the content has a directory of that name; "
                    "remove it or write to another path"
                )
                raise InvalidPathError(msg) from None


def finish_directory(target: Path, data: UnixFSData) -> None:
    """Set the recorded mode and modification time of a directory.

    Call this after all entries are written, because each write changes the modification time.

    Raises:
        InvalidPathError: the directory was removed or replaced meanwhile.
    """
    with translate_destination_errors(target):
        if not _is_directory(target):  # chmod and utime would follow a symlink
            msg = (
                f"{str(target)!r} was removed or replaced while content was written to it; "
                "export again, or export to another path"
            )
            raise InvalidPathError(msg)
        _restore_metadata(target, data)


@contextmanager
def atomic_replace(target: Path, data: UnixFSData, *, parents: bool) -> Iterator[Path]:
    """Yield a temporary path in the directory of the target, and rename it to the target on success.

    The ``with`` block creates a file or symlink at the temporary path, which is removed if the block raises.

    Args:
        target: path of the file or symlink. An existing file or symlink is replaced.
        data: provides the mode and the modification time to set.
        parents: create missing parent directories first.

    Raises:
        InvalidPathError: the target is a directory, or a parent of it is not a directory.
        StoreFullError: the disk of the destination is full.
    """
    with translate_destination_errors(target):
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        if _is_directory(target):
            msg = (
                f"{str(target)!r} is a directory, but the content has a file of that name; "
                "remove it or write to another path"
            )
            raise InvalidPathError(msg)
        # No check that the path is free: the block creates it with O_EXCL, or with a call that fails if it exists.
        temporary = target.with_name(f".mlflow-ipfs-{secrets.token_hex(8)}")
        try:
            yield temporary
            _restore_metadata(temporary, data)
            os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError, NotADirectoryError):  # its directory may have been removed, too
                temporary.unlink()
            raise


def _is_directory(target: Path) -> bool:
    """Return whether a path is a directory; a symlink to a directory is not."""
    try:
        return stat.S_ISDIR(os.lstat(target).st_mode)
    except FileNotFoundError:
        return False


def _restore_metadata(target: Path, data: UnixFSData) -> None:
    """Set the mode and the modification time that the content records, if any. A symlink has no mode of its own."""
    is_symlink = data.type is NodeType.SYMLINK
    if data.mode is not None and not is_symlink:
        target.chmod(data.mode & _RESTORED_MODE)
    if data.mtime_ns is not None:
        os.utime(target, ns=(data.mtime_ns, data.mtime_ns), follow_symlinks=not is_symlink)
