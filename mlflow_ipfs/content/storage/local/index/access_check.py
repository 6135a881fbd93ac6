"""Check for files and directories of a store that its owner, or the user of this process, may not use."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.system.access import is_usable
from mlflow_ipfs.content.system.mounts import is_read_only_mount

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from collections.abc import Iterator

_ACL: Final = "system.posix_acl_access"  # an ACL can grant access that the mode does not show


class Unusable(NamedTuple):
    """A file or directory that a user may not use.

    Attributes:
        path: its path.
        status: its owner and mode.
    """

    path: Path
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class AccessReport:
    """The files and directories of a store that cannot be used.

    Attributes:
        by_owner: those that the owner of the store's directory may not use.
        by_user: those that the user of this process may not use.
    """

    by_owner: tuple[Unusable, ...]
    by_user: tuple[Unusable, ...]


def check_access(directory: Path) -> AccessReport:
    """Check the owner and mode of every file and directory in a store: content, locks, sessions and SQLite's files.

    File content is not read.

    Raises:
        OSError: the store's directory does not exist.
    """
    read_only = is_read_only_mount(directory)
    owner = _User.owning(directory)
    by_owner, by_user = [], []
    for path, status in _walk(Layout(directory)):
        if not owner.may_use(path, status, read_only=read_only):
            by_owner.append(Unusable(path, status))
        if not is_usable(path, status, read_only=read_only):
            by_user.append(Unusable(path, status))
    return AccessReport(tuple(by_owner), tuple(by_user))


def _walk(layout: Layout) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file and directory of the store, except views and drafts: their files are only ever removed."""
    yield layout.directory, layout.directory.stat()
    directories = [str(layout.directory)]
    while directories:
        directory = directories.pop()
        is_scratch = Path(directory).is_relative_to(layout.tmp) or Path(directory).is_relative_to(layout.views)
        # A directory that cannot be listed has been yielded already.
        with suppress(FileNotFoundError, PermissionError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        directories.append(entry.path)
                    if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and not is_scratch):
                        yield Path(entry.path), status


@dataclass(frozen=True, slots=True)
class _User:
    """A user and the groups of that user."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def owning(cls, directory: Path) -> _User:
        """Return the owner of a directory. An owner without an account on this machine gets the directory's group."""
        status = directory.stat()
        gids = {status.st_gid}
        if sys.platform != "win32":
            with suppress(KeyError):
                entry = pwd.getpwuid(status.st_uid)
                gids = set(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(status.st_uid, frozenset(gids))

    def may_use(self, path: Path, status: os.stat_result, *, read_only: bool) -> bool:
        """Return whether owner, group and mode, or an ACL, give the user the access that a store requires."""
        if self.uid == 0:
            return True
        is_directory = stat.S_ISDIR(status.st_mode)
        needed = stat.S_IROTH | (stat.S_IXOTH if is_directory else 0)
        if not read_only and (is_directory or status.st_mode & stat.S_IWUSR):
            needed |= stat.S_IWOTH
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return status.st_mode >> shift & needed == needed or _has_acl(path)


def _has_acl(path: Path) -> bool:
    if sys.platform == "linux":
        with suppress(OSError):
            return bool(os.getxattr(path, _ACL, follow_symlinks=False))
    return False
