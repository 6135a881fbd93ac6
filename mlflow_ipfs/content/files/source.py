"""Source trees: the kind and status of a path on disk, and the walk of a directory with everything below it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import InvalidPathError, MlflowIpfsError, NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_logger = logging.getLogger(__name__)


class SourceKind(Enum):
    """The kind of a path that can be imported."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


_KIND_TESTS: Final = (
    (SourceKind.FILE, stat.S_ISREG),
    (SourceKind.DIRECTORY, stat.S_ISDIR),
    (SourceKind.SYMLINK, stat.S_ISLNK),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A path to import, as bytes, with its kind and the result of ``lstat``."""

    path: bytes
    kind: SourceKind
    status: os.stat_result

    def __str__(self) -> str:
        return repr(os.fsdecode(self.path))


@dataclass(frozen=True, slots=True)
class Visit:
    """One step of a walk.

    Attributes:
        source: the file, symlink or directory.
        name: its name in its directory; empty for the root of the walk.
        child_count: number of entries of this directory that the walk visited; 0 for files and symlinks.
        hidden_left_out: number of hidden entries of this directory that the walk left out.
    """

    source: Source
    name: bytes
    child_count: int = 0
    hidden_left_out: int = 0


@dataclass(slots=True)
class _OpenDirectory:
    """A directory whose entries are being visited. ``todo`` has the remaining names; the next one is last."""

    visit: Visit
    todo: list[bytes]


def walk(path: bytes, *, include_hidden: bool = True, follow_symlinks: bool = False) -> Iterator[Visit]:
    """Yield a path and everything below it. Entries are yielded in byte order, and before their directory.

    ``lstat`` is called on a file or symlink right before it is yielded, and on a directory right before its entries.
    The walk is iterative, because directories may be nested deeper than Python's stack.

    Args:
        path: the file, symlink or directory.
        include_hidden: whether entries whose names start with a dot are visited.
        follow_symlinks: whether a symlink is visited as the file or directory that it leads to.

    Raises:
        NotFoundError: the path does not exist, or a symlink to follow leads to nothing.
        PermissionError: a directory cannot be listed.
        InvalidPathError: a path is a socket, device or pipe, or a symlink to follow leads to a directory above it.
        SourceChangedError: an entry was removed after its directory was listed.
    """
    root = follow(stat_source(path)) if follow_symlinks else stat_source(path)
    if root.kind is not SourceKind.DIRECTORY:
        yield Visit(root, b"")
        return
    directories = [_open_directory(root, b"", include_hidden=include_hidden)]
    while directories:
        directory = directories[-1]
        if not directory.todo:
            yield directories.pop().visit
            continue
        name = directory.todo.pop()
        child = _stat_child(directory.visit.source, name)
        if follow_symlinks and child.kind is SourceKind.SYMLINK:
            child = _follow_child(child, directories)
        if child.kind is SourceKind.DIRECTORY:
            directories.append(_open_directory(child, name, include_hidden=include_hidden))
        else:
            yield Visit(child, name)


def _open_directory(source: Source, name: bytes, *, include_hidden: bool) -> _OpenDirectory:
    """List a directory whose entries are to be visited."""
    names = list_directory(source.path)
    visible = names if include_hidden else [entry for entry in names if not entry.startswith(b".")]
    hidden_left_out = len(names) - len(visible)
    if hidden_left_out:
        _logger.debug("%s: hidden entries left out: %d", source, hidden_left_out)
    return _OpenDirectory(Visit(source, name, len(visible), hidden_left_out), visible[::-1])


def stat_source(path: bytes) -> Source:
    """Return the kind and status of a path, without following a symlink.

    Raises:
        NotFoundError: the path does not exist.
        InvalidPathError: the path is a socket, device or pipe, or contains a NUL character.
    """
    if b"\0" in path:
        msg = f"the path {os.fsdecode(path)!r} contains a NUL character; remove it"
        raise InvalidPathError(msg)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"there is no file or directory {os.fsdecode(path)!r}; check the path"
        raise NotFoundError(msg) from None
    for kind, test in _KIND_TESTS:
        if test(status.st_mode):
            return Source(path, kind, status)
    msg = f"{os.fsdecode(path)!r} is neither a file nor a directory nor a symlink and cannot be imported; remove it"
    raise InvalidPathError(msg)


def follow(source: Source) -> Source:
    """Return the file or directory that a symlink leads to. Other sources are returned as they are.

    Raises:
        NotFoundError: the symlink leads to nothing.
        InvalidPathError: it leads to a socket, device or pipe, or forms a loop with other symlinks.
    """
    if source.kind is not SourceKind.SYMLINK:
        return source
    try:
        return stat_source(os.path.realpath(source.path, strict=True))
    except OSError as error:
        if isinstance(error, MlflowIpfsError):
            raise
        if error.errno == errno.ELOOP:
            msg = f"the symlinks of {source} form a loop; correct the symlink or name the file itself"
            raise InvalidPathError(msg) from error
        target = os.fsdecode(os.readlink(source.path))
        msg = f"{source} is a symlink to {target!r}, which does not exist; correct or remove the symlink"
        raise NotFoundError(msg) from error


def _follow_child(link: Source, above: Sequence[_OpenDirectory]) -> Source:
    """Return what a symlink in a directory leads to.

    Raises:
        InvalidPathError: it is one of the directories that contain the symlink, so that the walk would not end.
    """
    found = follow(link)
    identity = found.status.st_dev, found.status.st_ino
    for directory in above if found.kind is SourceKind.DIRECTORY else ():
        status = directory.visit.source.status
        if (status.st_dev, status.st_ino) == identity:
            msg = f"{link} is a symlink to a directory that contains it; remove the symlink, or do not follow symlinks"
            raise InvalidPathError(msg)
    return found


def list_directory(path: bytes) -> list[bytes]:
    """Return the names in a directory, in byte order."""
    return sorted(os.listdir(path))


def _stat_child(directory: Source, name: bytes) -> Source:
    """Return the kind and status of an entry that was listed in a directory.

    Raises:
        SourceChangedError: the entry was removed meanwhile.
    """
    path = os.path.join(directory.path, name)
    try:
        return stat_source(path)
    except NotFoundError as error:
        raise source_changed_error(path) from error


def source_changed_error(path: bytes) -> SourceChangedError:
    """Return the error for a path that changed while it was read."""
    msg = (
        f"{os.fsdecode(path)!r} changed while it was read; nothing was added. Add it again when no process writes to it"
    )
    return SourceChangedError(msg)
