"""Owner, group and mode of the files and directories that a store creates in its own directories.

Root may work on the store of a service user: to add content, to collect garbage, to restore a backup. The service user
must be able to use what root creates there. So root gives each new file and directory to the owner and the group of the
directory that contains it, as SQLite does with the -wal and -shm files of a database. A directory with write permission
for its group is shared: files created in it are accessible to the group as well, whatever the umask is. In all other
directories, a new file is private.

The containing directory is opened first, and the status of the open directory is used. Root renames and links only
between directories of one owner, or of one group that may write to both. So a symlink in the place of a directory cannot
make root give away, or place, a file where the owner or the group could not have placed it.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_ORDINARY_DIRECTORY: Final = 0o777
_SHARED_FILE: Final = 0o660
_INHERITED_BITS: Final = stat.S_ISGID | stat.S_IRWXG  # bits that directories in a shared directory inherit


def create_file(path: Path, flags: int) -> int:
    """Create a file with the owner and sharing of the directory that contains it, and return a descriptor.

    Args:
        path: the file, which must not exist.
        flags: flags for ``os.open``, for example ``os.O_RDWR``.

    Raises:
        FileExistsError: the path exists.
        PolicyError: this process is root, but cannot change the owner of a file.
        OSError: the operating system reports another error.
    """
    with _directory_of(path) as (directory, name):
        descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE, dir_fd=directory)
        try:
            _hand_over(path, descriptor, directory)
        except BaseException:
            os.close(descriptor)
            os.unlink(name, dir_fd=directory)
            raise
    return descriptor


def create_parents(path: Path) -> None:
    """Create the missing parent directories of a path, each with the owner and sharing of its own parent.

    Raises:
        PolicyError: this process is root, but cannot change the owner of a directory.
        OSError: the operating system reports another error.
    """
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    for parent in reversed(missing):
        with suppress(FileExistsError):
            create_directory(parent, _ORDINARY_DIRECTORY)


def create_directory(path: Path, mode: int = _PRIVATE_DIRECTORY) -> None:
    """Create a directory with the owner and sharing of the directory that contains it.

    Args:
        path: the directory, which must not exist.
        mode: the mode, from which the umask removes bits.

    Raises:
        FileExistsError: the path exists.
        PolicyError: this process is root, but cannot change the owner of a directory.
        OSError: the operating system reports another error.
    """
    with _directory_of(path) as (directory, name):
        os.mkdir(name, mode, dir_fd=directory)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                _hand_over(path, descriptor, directory)
            finally:
                os.close(descriptor)
        except BaseException:
            os.rmdir(name, dir_fd=directory)
            raise


def rename(source: Path, destination: Path) -> None:
    """Move a file or directory within its file system.

    Raises:
        PolicyError: this process is root, and the two directories belong to different users and are not shared by a group.
        OSError: the operating system reports another error.
    """
    if not _is_root():
        os.rename(source, destination)
        return
    with _two_directories(source, destination) as (old, new):
        os.rename(source.name, destination.name, src_dir_fd=old, dst_dir_fd=new)


def link(source: Path, destination: Path) -> None:
    """Create a hard link.

    Raises:
        PolicyError: this process is root, and the two directories belong to different users and are not shared by a group.
        OSError: the operating system reports another error.
    """
    if not _is_root():
        os.link(source, destination)
        return
    with _two_directories(source, destination) as (old, new):
        os.link(source.name, destination.name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def _two_directories(source: Path, destination: Path) -> Iterator[tuple[int, int]]:
    """Open the directories that contain two paths. Raise ``PolicyError`` if they belong to different users."""
    with _directory_of(source) as (old, _), _directory_of(destination) as (new, _):
        owner, other = os.fstat(old), os.fstat(new)
        if owner.st_uid != other.st_uid and not _are_shared(owner, other):
            msg = (
                f"{destination} was not created: root places files of user {owner.st_uid} only in directories of that "
                f"user, but {destination.parent} belongs to user {other.st_uid}; change its owner (chown), "
                "or remove it if it is a symlink"
            )
            raise PolicyError(msg)
        try:
            yield old, new
        except OSError as error:
            error.filename, error.filename2 = str(source), str(destination)
            raise


def _are_shared(first: os.stat_result, second: os.stat_result) -> bool:
    """Return whether one group may write to two directories: each of its members could place the file."""
    return bool(first.st_gid == second.st_gid and first.st_mode & second.st_mode & stat.S_IWGRP)


@contextmanager
def _directory_of(path: Path) -> Iterator[tuple[int, str]]:
    """Open the directory that contains a path. Yield its descriptor, and the name of the path in it."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, path.name
    except OSError as error:
        if error.filename == path.name:  # relative to the directory; the caller needs the whole path
            error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _hand_over(path: Path, descriptor: int, directory: int) -> None:
    """Give a new file or directory the owner, the group and the sharing of the directory that contains it."""
    parent, new = os.fstat(directory), os.fstat(descriptor)
    if _is_root() and (parent.st_uid, parent.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, parent.st_uid, parent.st_gid)
        except PermissionError as error:
            msg = (
                f"{path} was not created: this process is root, but may not give files in {path.parent} to the owner "
                f"of that directory (user {parent.st_uid}); run the program as that user, or grant it CAP_CHOWN"
            )
            raise PolicyError(msg) from error
        new = os.fstat(descriptor)
    # If the new file has another group than the directory, the bits would give access to that group.
    if parent.st_mode & stat.S_IWGRP and new.st_gid == parent.st_gid:
        shared = (
            stat.S_IMODE(new.st_mode) | parent.st_mode & _INHERITED_BITS if stat.S_ISDIR(new.st_mode) else _SHARED_FILE
        )
        os.fchmod(descriptor, shared)
