"""Sources: the directories and buckets from which artifacts are taken in. All are read, and only on request changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.artifacts.artifact_places import hide_user, local_path, without_user
from mlflow_ipfs.binding.locations import scheme_of
from mlflow_ipfs.content.mfs import MfsPath, check_mutable
from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS
from mlflow_ipfs.errors import MlflowIpfsError, RemoteError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from contextlib import AbstractContextManager

_ANY_TREE: Final = MfsPath("any")  # to check names, which are valid in any mutable tree or in none


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source.

    Attributes:
        path: its path below the source, with slashes.
        size_bytes: its size.
        stamp: text that changes when the file changes; empty if the source has only names and sizes.
        changed_ns: time of the last change, of the file or of its metadata, in ns since 1970; 0 if the source has none.
        written_ns: time of the last change of its content, in ns since 1970; 0 if the source has none.
    """

    path: str
    size_bytes: int
    stamp: str = ""
    changed_ns: int = 0
    written_ns: int = 0

    @property
    def mark(self) -> str:
        """A short hash of path, size and time of writing. Copies and changes of owner or permissions keep it."""
        text = f"{self.path}\0{self.size_bytes}\0{self.written_ns}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()[:16]


@dataclass(slots=True)
class Listing:
    """The files of a source.

    Attributes:
        files: the files that can be taken in, by their paths.
        problems: for each file or directory that cannot be taken in, the reason.
        empty_directories: number of directories without any file, which a store does not keep.
    """

    files: dict[str, SourceFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    empty_directories: int = 0

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of the files."""
        return sum(file.size_bytes for file in self.files.values())

    @property
    def fingerprint(self) -> str:
        """A hash of paths, sizes and stamps: it is the same while no file changes."""
        lines = (f"{file.path}\0{file.size_bytes}\0{file.stamp}\n" for file in self.files.values())
        text = "".join(sorted(lines)).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()

    def without(self, marks: Container[str]) -> list[SourceFile]:
        """Return the files whose marks are not among those of an earlier listing."""
        return [file for file in self.files.values() if file.mark not in marks]

    def add(self, file: SourceFile) -> None:
        """Add a file, or a problem if a mutable tree cannot have a file of that name."""
        try:
            check_mutable(_ANY_TREE.join(file.path))
        except MlflowIpfsError as error:
            self.problems.append(str(error).replace(f"{_ANY_TREE}/", ""))
        else:
            self.files[file.path] = file


class ArtifactSource(Protocol):
    """The files of one run, logged model or trace, where they are before the adoption."""

    @property
    def place(self) -> str:
        """The directory or URI."""

    @property
    def is_local(self) -> bool:
        """Whether ``fetched`` returns the files themselves, so that reading them again is cheap."""

    def list_files(self) -> Listing:
        """Return all files.

        Raises:
            RemoteError: the source cannot be listed.
        """

    def fetched(self, make_directory: Callable[[], Path]) -> AbstractContextManager[Path]:
        """Return a context manager with a directory that has the files.

        Args:
            make_directory: makes a directory for a copy.

        Raises:
            RemoteError: the source cannot be read.
            StoreFullError: the copy does not fit on the disk.
        """

    def remove(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Remove files that have not changed since they were listed, and then directories that are empty.

        Returns:
            The files that were removed.

        Raises:
            RemoteError, OSError: a file cannot be removed.
        """


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory of this machine. Symlinks are followed, as by MLflow."""

    directory: Path

    is_local: ClassVar = True

    @property
    def place(self) -> str:
        """See ``ArtifactSource``."""
        return str(self.directory)

    def list_files(self) -> Listing:
        """See ``ArtifactSource``. The listing is empty if the directory does not exist."""
        listing = Listing()
        if os.path.lexists(self.directory):
            _list_directory(listing, str(self.directory), "", frozenset())
        return listing

    @contextmanager
    def fetched(self, make_directory: Callable[[], Path]) -> Iterator[Path]:
        """See ``ArtifactSource``."""
        del make_directory
        yield self.directory

    def remove(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """See ``ArtifactSource``. A symlink is removed, and its target stays."""
        removed = {}
        links: set[str] = set()
        for file in files:
            path = self.directory / file.path
            if not _is_unchanged(path, file):
                continue
            link = self._outer_symlink(file.path)
            if link is None:
                path.unlink()
            else:
                links.add(link)
            removed[file.path] = file
        below = self.list_files().files if links else {}
        for link in links:
            inside = [file for path, file in below.items() if path.startswith(f"{link}/")]
            if all(removed.get(file.path) == file for file in inside):
                (self.directory / link).unlink()
            else:
                removed = {path: file for path, file in removed.items() if not path.startswith(f"{link}/")}
        for parent, _, _ in os.walk(self.directory, topdown=False):
            with suppress(OSError):  # not empty
                Path(parent).rmdir()
        return list(removed.values())

    def _outer_symlink(self, path: str) -> str | None:
        """Return the directory above a file that is a symlink; None if the path has no such directory."""
        parts = path.split("/")
        above = ("/".join(parts[:length]) for length in range(1, len(parts)))
        return next((directory for directory in above if (self.directory / directory).is_symlink()), None)


def _list_directory(listing: Listing, directory: str, path: str, above: frozenset[tuple[int, int]]) -> bool:
    """Add everything below a directory to a listing. Return False if the directory has no entries."""
    try:
        status = Path(directory).stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            listing.problems.append(f"{directory!r} is a symlink to a directory that contains it; remove the symlink")
            return True
        entries = sorted(os.scandir(directory), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        listing.problems.append(f"{directory!r} cannot be listed: {error.strerror}")
        return True
    for entry in entries:
        below = f"{path}/{entry.name}" if path else entry.name
        try:
            if entry.is_dir():
                if not _list_directory(listing, entry.path, below, above | {identity}):
                    listing.empty_directories += 1
                continue
            _list_file(listing, entry, below)
        except OSError as error:
            listing.problems.append(f"{entry.path!r} cannot be read: {error.strerror}")
    return bool(entries)


def _list_file(listing: Listing, entry: os.DirEntry[str], path: str) -> None:
    status = entry.stat()
    if not stat.S_ISREG(status.st_mode):
        listing.problems.append(f"{entry.path!r} is neither a file nor a directory; remove it")
    elif not os.access(entry.path, os.R_OK):
        listing.problems.append(f"{entry.path!r} cannot be read: this user has no permission")
    else:
        listing.add(_file_of(path, status))


def _file_of(path: str, status: os.stat_result) -> SourceFile:
    stamp = f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_ctime_ns}"
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    return SourceFile(path, status.st_size, stamp, changed_ns, status.st_mtime_ns)


def _is_unchanged(path: Path, file: SourceFile) -> bool:
    """Return whether a file on disk is still the one that was listed."""
    try:
        return _file_of(file.path, path.stat()) == file
    except (FileNotFoundError, NotADirectoryError):
        return False


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A location that one of MLflow's artifact repositories reads, such as ``s3://``."""

    uri: str

    is_local: ClassVar = False

    @property
    def place(self) -> str:
        """See ``ArtifactSource``."""
        return self.uri

    def list_files(self) -> Listing:
        """See ``ArtifactSource``."""
        listing = Listing()
        try:
            repository = mlflow_compat.open_artifact_repository(self.uri)
            todo = [""]
            while todo:
                for info in repository.list_artifacts(todo.pop() or None):
                    if info.is_dir:
                        todo.append(info.path)
                    else:
                        listing.add(SourceFile(info.path, int(info.file_size or 0)))
        except Exception as error:
            raise self._unreadable(error) from error
        return listing

    @contextmanager
    def fetched(self, make_directory: Callable[[], Path]) -> Iterator[Path]:
        """See ``ArtifactSource``."""
        directory = make_directory()
        try:
            try:
                repository = mlflow_compat.open_artifact_repository(self.uri)
                found = repository.download_artifacts("", str(directory))
            except Exception as error:
                if _is_full_disk(error):
                    msg = (
                        f"no space is left for a temporary copy of {without_user(self.uri)}; free space, then continue"
                    )
                    raise StoreFullError(msg) from error
                raise self._unreadable(error) from error
            yield Path(found)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def remove(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """See ``ArtifactSource``. The caller passes all files; if another one exists now, none is removed."""
        if set(self.list_files().files.values()) != set(files):
            msg = f"{without_user(self.uri)} changed while it was compared; nothing of it was removed"
            raise RemoteError(msg)
        try:
            mlflow_compat.open_artifact_repository(self.uri).delete_artifacts()
        except Exception as error:
            msg = f"{self.uri} cannot be removed: {error}"
            raise RemoteError(hide_user(msg, self.uri)) from error
        return list(files)

    def _unreadable(self, error: Exception) -> RemoteError:
        # Any error is possible, for example a missing library, an unknown scheme or an unreachable server.
        return RemoteError(hide_user(f"{self.uri} cannot be read: {error}", self.uri))


def _is_full_disk(error: Exception) -> bool:
    """Return True if an error of a download says that the disk is full. MLflow's own error has it only in its text."""
    return any(os.strerror(number) in str(error) for number in FULL_DISK_ERRORS)


def open_place(place: str) -> ArtifactSource:
    """Return the source at a directory or URI."""
    path = local_path(place) if scheme_of(place) in {"", "file"} else None
    return RemoteSource(place) if path is None else LocalSource(Path(path).absolute())
