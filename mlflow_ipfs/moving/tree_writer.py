"""Verified copies of content of the store as plain files, which never replace the user's files."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.checking.compare import compare_with_disk
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.files.tree_size import measure_tree
from mlflow_ipfs.content.system.destination_errors import translate_destination_errors
from mlflow_ipfs.content.system.locking import locked_directory
from mlflow_ipfs.content.system.ownership import create_parents
from mlflow_ipfs.errors import ConflictError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

_STAGING: Final = ".mlflow-ipfs-eject"  # incomplete files, on the same disk as the complete ones


@dataclass(slots=True)
class TreeWriter:
    """Writer of trees below one directory. Use ``opened_writer``.

    Every block is hashed while it is written. A file appears under its name when it is complete, so that a writer that
    was killed leaves no incomplete file. A file that exists is compared with the content: an equal one is kept, and
    any other one is an error.

    Attributes:
        store: the store with the content.
        directory: the directory.
        progress: called with the number of bytes just written or compared.
        files: number of files written.
        equal_files: number of files that existed and were equal.
        size_bytes: size of the files written.
    """

    store: ContentStore
    directory: Path
    progress: Callable[[int], None]
    files: int = 0
    equal_files: int = 0
    size_bytes: int = 0
    _own: dict[Path, CID] = field(default_factory=dict)  # files of this writer, which it may replace
    _trees: set[Path] = field(default_factory=set)
    _equal: dict[Path, CID] = field(default_factory=dict)  # many versions may have the same content

    def write_file(self, cid: CID, size_bytes: int, target: Path) -> None:
        """Write a file.

        Raises:
            ConflictError: another file exists at the path.
            NotFoundError, IntegrityError: a block is missing or damaged.
            InvalidPathError: the disk cannot have a file of that name.
            StoreFullError: the disk is full.
        """
        if self._own.get(target) == cid:
            return
        if target not in self._own and self._has_equal(cid, target, size_bytes):
            self.equal_files += 1
            return
        with self._staged(cid, target) as draft:
            draft.replace(target)
        self._equal.clear()
        self._own[target] = cid
        self.files += 1
        self.size_bytes += size_bytes

    def remove_file(self, target: Path) -> None:
        """Remove a file that this writer wrote. Any other file stays."""
        if self._own.pop(target, None) is not None:
            target.unlink(missing_ok=True)

    def write_tree(self, cid: CID, target: Path) -> None:
        """Write a file or directory in one step. The errors are those of ``write_file``."""
        if target in self._trees:
            return
        if self._has_equal(cid, target, 0):
            self.equal_files += 1
        else:
            with self._staged(cid, target) as draft:
                draft.replace(target)
            self._count(target)
        self._trees.add(target)

    def is_equal(self, cid: CID, target: Path, location: MfsPath | None = None) -> bool:
        """Return whether a file or directory exists and has exactly this content.

        Args:
            cid: the content.
            target: the file or directory.
            location: the mutable path that was, or will be, copied to the target, if any.
        """
        del location
        if self._equal.get(target) != cid:
            if not os.path.lexists(target) or compare_with_disk(self.store.blocks, cid, target).problems:
                return False
            self._equal[target] = cid
        return True

    def sync(self) -> None:
        """Make everything that was written durable."""
        os.sync()

    def _has_equal(self, cid: CID, target: Path, size_bytes: int) -> bool:
        if not os.path.lexists(target):
            return False
        if not self.is_equal(cid, target):
            msg = f"{str(target)!r} exists and has other content, so it was not replaced; move it away, or name another directory"
            raise ConflictError(msg)
        self.progress(size_bytes)
        return True

    @contextmanager
    def _staged(self, cid: CID, target: Path) -> Iterator[Path]:
        """Write content to a draft, and yield the draft's path. The block renames it."""
        draft = self.directory / _STAGING / "draft"
        try:
            with _errors_naming(target, draft):
                self.store.view(cid, dst=draft, verify=True, progress=self.progress)
            with translate_destination_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                yield draft
        finally:
            _remove(draft)

    def _count(self, target: Path) -> None:
        for parent, _, names in os.walk(target):
            self.files += len(names)
            self.size_bytes += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)  # noqa: PTH118
        if target.is_file():
            self.files += 1
            self.size_bytes += target.stat().st_size


class TreeCounter(TreeWriter):
    """Counter of what a ``TreeWriter`` would write. Files that exist are not compared."""

    def write_file(self, cid: CID, size_bytes: int, target: Path) -> None:
        """See ``TreeWriter``."""
        if os.path.lexists(target):
            self.equal_files += 1
        elif target not in self._own:
            self.files += 1
            self.size_bytes += size_bytes
        self._own[target] = cid

    def remove_file(self, target: Path) -> None:
        """Remove nothing."""

    def write_tree(self, cid: CID, target: Path) -> None:
        """See ``TreeWriter``. The numbers include the directories of the tree and their nodes."""
        if target in self._trees:
            return
        self._trees.add(target)
        node = read_unixfs(self.store.blocks, cid)
        if os.path.lexists(target):
            self.equal_files += 1
            return
        self.files += measure_tree(self.store.blocks, node).written if node.data.is_directory else 1
        self.size_bytes += node.dag_bytes

    def is_equal(self, cid: CID, target: Path, location: MfsPath | None = None) -> bool:
        """See ``TreeWriter``. The content of the mutable path is compared."""
        del target
        try:
            return location is not None and self.store.files.snapshot(location, only_hash=True).cid == cid
        except NotFoundError:
            return False


@dataclass(slots=True)
class MutableCopy:
    """A copy of the files of a mutable path, which can be brought up to date.

    Attributes:
        writer: writes the files.
        location: the mutable path.
        target: the directory of the copy; or the file, if the mutable path is a file.
    """

    writer: TreeWriter
    location: MfsPath
    target: Path
    _written: dict[str, CID] = field(default_factory=dict)

    def update(self) -> None:
        """Write the files as they are now. The errors are those of ``TreeWriter.write_file``."""
        entries = self.writer.store.files.walk(self.location)
        for gone in self._written.keys() - {entry.path for entry in entries}:
            self.writer.remove_file(self._path(gone))
        for entry in entries:
            self.writer.write_file(entry.cid, entry.size_bytes, self._path(entry.path))
        self._written = {entry.path: entry.cid for entry in entries}

    def is_current(self) -> bool:
        """Return whether no file was changed, added or deleted since the last update."""
        return {entry.path: entry.cid for entry in self.writer.store.files.walk(self.location)} == self._written

    def _path(self, path: str) -> Path:
        below = path[len(self.location.path) :].strip("/")
        return self.target / below if below else self.target


@contextmanager
def opened_counter(store: ContentStore, directory: Path, progress: Callable[[int], None]) -> Iterator[TreeWriter]:
    """Yield a counter for a directory. Nothing is created."""
    yield TreeCounter(store, directory, progress)


@contextmanager
def opened_writer(store: ContentStore, directory: Path, progress: Callable[[int], None]) -> Iterator[TreeWriter]:
    """Yield a writer for a directory, which is created if it does not exist. Only one writer at a time uses a directory.

    Raises:
        StoreBusyError: another process writes into the directory.
        InvalidPathError: the path is not a directory.
    """
    with translate_destination_errors(directory):
        create_parents(directory / _STAGING)
        directory.mkdir(exist_ok=True)
    with locked_directory(directory, "ejects artifacts into"):
        staging = directory / _STAGING
        _remove(staging)  # left by a process that was killed
        with translate_destination_errors(staging):
            staging.mkdir()
        try:
            yield TreeWriter(store, directory, progress)
        finally:
            _remove(staging)


@contextmanager
def _errors_naming(target: Path, draft: Path) -> Iterator[None]:
    """Replace the draft's path in errors with the path of the complete file."""
    try:
        yield
    except MlflowIpfsError as error:
        if str(draft) not in str(error):
            raise
        raise type(error)(str(error).replace(str(draft), str(target))) from error
    except OSError as error:
        if not str(error.filename).startswith(str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _remove(path: Path) -> None:
    """Remove a file or directory, even if directories in it are read-only, as content may require."""
    if not path.is_dir() or path.is_symlink():
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        return
    for parent, names, _ in os.walk(path):
        for name in names:
            with suppress(OSError):
                os.chmod(os.path.join(parent, name), 0o700, follow_symlinks=False)  # noqa: PTH101, PTH118
    shutil.rmtree(path, ignore_errors=True)
