"""Source trees: what is at a path on disk, and the walk through a directory with everything below it."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mlflow_ipfs.errors import InvalidPathError, NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)


class SourceKind(Enum):
    """What a path is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Source:
    """A path that is going to be imported, as bytes, with what ``lstat`` says of it."""

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
        name: its name in its directory; empty for the top.
        child_count: how many entries of this directory the walk visited; 0 for files and symlinks.
        hidden_left_out: how many hidden entries of this directory the walk left out.
    """

    source: Source
    name: bytes
    child_count: int = 0
    hidden_left_out: int = 0


@dataclass(slots=True)
class _OpenDirectory:
    """A directory whose entries are being visited; ``todo`` has the names that are left, the next one last."""

    visit: Visit
    todo: list[bytes]


def walk(path: bytes, *, include_hidden: bool = True) -> Iterator[Visit]:
    """Yield what is at a path and everything below it. A directory follows its entries, which come in byte order.

    Symlinks are yielded as themselves. Each source is examined right before it is yielded, and a directory
    right before its entries. Works without recursion, because directories may be nested deeper than Python's stack.

    Raises:
        NotFoundError: nothing is at the path.
        PermissionError: a directory cannot be listed.
        InvalidPathError: a socket, device or pipe is in the way.
        SourceChangedError: an entry vanished after its directory was listed.
    """
    top = stat_source(path)
    if top.kind is not SourceKind.DIRECTORY:
        yield Visit(top, b"")
        return
    directories = [_open_directory(top, b"", include_hidden=include_hidden)]
    while directories:
        directory = directories[-1]
        if not directory.todo:
            yield directories.pop().visit
            continue
        name = directory.todo.pop()
        child = _stat_child(directory.visit.source, name)
        if child.kind is SourceKind.DIRECTORY:
            directories.append(_open_directory(child, name, include_hidden=include_hidden))
        else:
            yield Visit(child, name)


def _open_directory(source: Source, name: bytes, *, include_hidden: bool) -> _OpenDirectory:
    names = list_directory(source.path)
    visible = names if include_hidden else [entry for entry in names if not entry.startswith(b".")]
    hidden_left_out = len(names) - len(visible)
    if hidden_left_out:
        _logger.debug("%s: hidden entries left out: %d", source, hidden_left_out)
    return _OpenDirectory(Visit(source, name, len(visible), hidden_left_out), visible[::-1])


def stat_source(path: bytes) -> Source:
    """Find out what a path is.

    Raises:
        NotFoundError: nothing is there.
        InvalidPathError: it is a socket, a device or a pipe, or the path holds a NUL character.
    """
    if b"\0" in path:
        msg = f"the path {os.fsdecode(path)!r} holds a NUL character"
        raise InvalidPathError(msg)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"there is no file or directory {os.fsdecode(path)!r}"
        raise NotFoundError(msg) from None
    for kind, test in _TESTS:
        if test(status.st_mode):
            return Source(path, kind, status)
    msg = f"{os.fsdecode(path)!r} is neither a file nor a directory nor a symlink, so it has no content to add"
    raise InvalidPathError(msg)


_TESTS = (
    (SourceKind.FILE, stat.S_ISREG),
    (SourceKind.DIRECTORY, stat.S_ISDIR),
    (SourceKind.SYMLINK, stat.S_ISLNK),
)


def list_directory(path: bytes) -> list[bytes]:
    """Names in a directory, in byte order."""
    return sorted(os.listdir(path))


def _stat_child(directory: Source, name: bytes) -> Source:
    """Find out what a name that was listed in a directory is; raises ``SourceChangedError`` if it is gone."""
    path = os.path.join(directory.path, name)
    try:
        return stat_source(path)
    except NotFoundError as error:
        raise changed(path) from error


def changed(path: bytes) -> SourceChangedError:
    """The error for a file that changed while it was read."""
    msg = f"{os.fsdecode(path)!r} changed while it was read; nothing was added: add it again when nobody writes to it"
    return SourceChangedError(msg)
