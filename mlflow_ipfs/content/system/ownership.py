"""Owner, group and mode of what a store creates in its own directories.

Root may work on the store of a service user: to add content, to collect garbage, to restore a backup.
The service user must be able to use what root created there. So root hands each new file and directory
to the owner and the group of the directory that contains it, as SQLite does with the -wal and -shm
files of a database. A directory that its group may write to is shared: what is created in it is for
the group as well, whatever the umask says. In all other directories the new file is private.

The directory is opened first, and its own status decides; a rename by root stays among directories of
one owner. A link in the place of a directory therefore gives away nothing outside of the owner's directories.
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
_KEPT_BITS: Final = stat.S_ISGID | stat.S_IRWXG  # of a shared directory, for the directories in it


def create_file(path: Path, flags: int) -> int:
    """Create a file for the users of the directory that contains it, and return a descriptor.

    Args:
        path: the file, which must not exist.
        flags: how it is opened, ``os.O_RDWR`` for example.

    Raises:
        FileExistsError: something has that name.
        PolicyError: this process is root, but cannot change the owner of a file.
        OSError: the system refuses the file.
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
    """Create the directories above a path that are missing, each for the users of the directory that contains it.

    Raises:
        PolicyError: this process is root, but cannot change the owner of a directory.
        OSError: the system refuses a directory.
    """
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    for parent in reversed(missing):
        with suppress(FileExistsError):
            create_directory(parent, _ORDINARY_DIRECTORY)


def create_directory(path: Path, mode: int = _PRIVATE_DIRECTORY) -> None:
    """Create a directory for the users of the directory that contains it.

    Args:
        path: the directory, which must not exist.
        mode: what others may do in it, less what the umask takes away.

    Raises:
        FileExistsError: something has that name.
        PolicyError: this process is root, but cannot change the owner of a directory.
        OSError: the system refuses the directory.
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
        PolicyError: this process is root, and the two directories belong to different users.
        OSError: the system refuses it.
    """
    if not _is_root():
        os.rename(source, destination)
        return
    with _two_directories(source, destination) as (old, new):
        os.rename(source.name, destination.name, src_dir_fd=old, dst_dir_fd=new)


def link(source: Path, destination: Path) -> None:
    """Give a file a second name.

    Raises:
        PolicyError: this process is root, and the two directories belong to different users.
        OSError: the system refuses it.
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
    """Open the directories that contain two paths, if they belong to one user."""
    with _directory_of(source) as (old, _), _directory_of(destination) as (new, _):
        owner, other = os.fstat(old).st_uid, os.fstat(new).st_uid
        if owner != other:
            msg = (
                f"{destination} was not created: root keeps the files of user {owner} in the directories of that user, and "
                f"{destination.parent} belongs to user {other}: give it back (chown), or remove it if it is a link"
            )
            raise PolicyError(msg)
        try:
            yield old, new
        except OSError as error:
            error.filename, error.filename2 = str(source), str(destination)
            raise


@contextmanager
def _directory_of(path: Path) -> Iterator[tuple[int, str]]:
    """Open the directory that contains a path. Yields its descriptor, and the name of the path in it."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, path.name
    except OSError as error:
        if error.filename == path.name:  # what the system was told; the caller and the user know the path
            error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _hand_over(path: Path, descriptor: int, directory: int) -> None:
    """Give a new file or directory the owner, the group and the sharing of the directory that contains it."""
    around, new = os.fstat(directory), os.fstat(descriptor)
    if _is_root() and (around.st_uid, around.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, around.st_uid, around.st_gid)
        except PermissionError as error:
            msg = (
                f"{path} was not created: this process is root, but may not give what it creates in {path.parent} to "
                f"the owner of that directory (user {around.st_uid}): run it as that user, or let it change owners (CAP_CHOWN)"
            )
            raise PolicyError(msg) from error
        new = os.fstat(descriptor)
    # Without the group of the directory, the bits would open the file to another group.
    if around.st_mode & stat.S_IWGRP and new.st_gid == around.st_gid:
        shared = stat.S_IMODE(new.st_mode) | around.st_mode & _KEPT_BITS if stat.S_ISDIR(new.st_mode) else _SHARED_FILE
        os.fchmod(descriptor, shared)
