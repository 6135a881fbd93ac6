"""Mutable file trees, ``mfs://<root>/path``. Their files can be replaced and deleted; the content of a CID cannot.

``mfs://<root>/…/@<cid>[/path]`` is frozen content below a mutable path. It is read-only, and valid only for CIDs that
were frozen under that path.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from mlflow_ipfs.content.checking.completeness import check_complete
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.dag import encode_name, is_safe_name, join_path, read_unixfs, split_path
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Added, Imported, Importer, ImportOptions
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.entries import DIRECTORY_MARK, Frozen, MfsDirectory, MfsEntry
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import ImmutableError, InvalidPathError, IsDirectoryError, NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.storage.base import Publication, Storage

_logger = logging.getLogger(__name__)

FROZEN_PREFIX: Final = "@"


@dataclass(frozen=True, slots=True)
class MfsPath:
    """A path in a mutable tree.

    Attributes:
        root: the name of the tree.
        path: ``a/b/c``, without leading and trailing slashes; ``""`` for the top directory.
    """

    root: str
    path: str = ""

    def __post_init__(self) -> None:
        parts = split_path(self.path)
        if not is_safe_name(encode_name(self.root)) or self.root.startswith(FROZEN_PREFIX):
            msg = f"{self.root!r} is not a valid name of a mutable tree; use another name in mfs://<root>/path"
            raise InvalidPathError(msg)
        encode_name(self.path)  # raises if a name is not valid text
        object.__setattr__(self, "path", "/".join(parts))

    @classmethod
    def parse(cls, uri: str) -> MfsPath:
        """Return the path for a URI ``mfs://<root>/path``. Names are not escaped, as in MLflow's artifact URIs.

        Raises:
            InvalidPathError: the URI has another scheme, no root, a ``..``, or a ``?`` or ``#``, which URI parsers
                interpret as the start of a query or a fragment.
        """
        scheme, _, rest = uri.partition("://")
        if scheme.lower() != "mfs" or "?" in rest or "#" in rest:
            msg = f"{uri!r} is not a mutable path; write mfs://<root>/path, without '?' and '#'"
            raise InvalidPathError(msg)
        root, _, path = rest.partition("/")
        return cls(root, path)

    def join(self, path: str) -> MfsPath:
        """Return the path at a relative path below this one."""
        return MfsPath(self.root, f"{self.path}/{path}")

    def __str__(self) -> str:
        return f"mfs://{self.root}/{self.path}" if self.path else f"mfs://{self.root}"


class MutableFiles:
    """The mutable trees of a store, as files. The last writer of a path wins.

    Args:
        storage: stores blocks and entries.
        options: options of the import of files.
    """

    def __init__(self, storage: Storage, options: ImportOptions) -> None:
        self._storage = storage
        self._options = options

    def put_file(
        self,
        location: MfsPath,
        source: Path,
        *,
        chunker: Chunker | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> MfsEntry:
        """Publish one file at a path.

        Args:
            location: the path in the tree.
            source: the file on disk; symlinks are followed.
            chunker: decides where the file is split; None for the store's chunker.
            progress: called with the number of bytes just read.

        Raises:
            ImmutableError: the path is frozen.
            ConflictError: the path is a directory, or a parent of the path is a file.
            NotFoundError, IsDirectoryError, SourceChangedError: the source cannot be imported.
        """
        return self._put_sources([(location, source)], chunker, progress)[0][0]

    def put_tree(
        self,
        location: MfsPath,
        directory: Path,
        *,
        chunker: Chunker | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Sequence[MfsEntry]:
        """Publish all files of a directory, including hidden ones, in one step. As in MLflow, symlinks are followed.

        Empty directories are recorded too.

        Args:
            location: the path of the directory in the tree.
            directory: the directory on disk.
            chunker: as for ``put_file``.
            progress: as for ``put_file``.

        Raises:
            NotDirectoryError: the source is a file.
            InvalidPathError: a symlink forms a loop, or a path is a socket, device or pipe.
            ImmutableError, ConflictError, NotFoundError, SourceChangedError: as for ``put_file``.
        """
        found = [(location.join(path), source) for path, source in _files_below(directory)]
        sources = [(path, source) for path, source in found if source is not None]
        return self._put_sources(sources, chunker, progress, [path for path, source in found if source is None])[0]

    def put_files(
        self,
        sources: Sequence[tuple[MfsPath, Path]],
        *,
        expected: Mapping[MfsPath, CID | None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[Sequence[MfsEntry], int]:
        """Publish files at their paths, all in one step. Return their entries, and the bytes that the store did not have.

        Args:
            sources: for each file, its path in a tree and the file on disk; symlinks are followed.
            expected: for some paths, the CID of the file that the caller saw there, or None for no file.
            progress: as for ``put_file``.

        Raises:
            ImmutableError, NotFoundError, IsDirectoryError, SourceChangedError: as for ``put_file``. No file was published.
            ConflictError: as for ``put_file``; or another program has changed an ``expected`` file. No file was published.
        """
        return self._put_sources(sources, None, progress, expected=expected) if sources else ([], 0)

    def _put_sources(
        self,
        sources: Sequence[tuple[MfsPath, Path]],
        chunker: Chunker | None,
        progress: Callable[[int], None] | None,
        empty_directories: Sequence[MfsPath] = (),
        *,
        expected: Mapping[MfsPath, CID | None] | None = None,
    ) -> tuple[Sequence[MfsEntry], int]:
        for location, _ in sources:
            _check_file_location(location)
        for location in empty_directories:
            check_mutable(location)
        with self._storage.publish() as publication:
            with Importer(publication, self._options.with_chunker(chunker), progress=progress) as importer:
                entries = [_entry(location, importer.import_file(source)) for location, source in sources]
            marks = self._mark(empty_directories, publication)
            seen = {(location.root, location.path): cid for location, cid in (expected or {}).items()}
            new_bytes = publication.commit(Changes(entries=[*entries, *marks], expected=seen))
        root = (entries or marks)[0].root
        _logger.debug("mfs://%s: put %d files, %d bytes new in the store", root, len(entries), new_bytes)
        return entries, new_bytes

    def _mark(self, directories: Sequence[MfsPath], publication: Publication) -> list[MfsEntry]:
        """Put the node of an empty directory, and return a mark with it for each directory."""
        if not directories:
            return []
        link = NodeBuilder(publication.put, self._options.profile).build_directory([])
        now = time.time_ns()
        paths = [(location.root, join_path(location.path, DIRECTORY_MARK)) for location in directories]
        return [MfsEntry(root, path, link.cid, 0, link.size_bytes or 0, now) for root, path in paths]

    def put_stream(
        self,
        location: MfsPath,
        stream: BinaryIO,
        *,
        chunker: Chunker | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> MfsEntry:
        """Publish the rest of a stream as a file, with the same CID as ``put_file`` of a file with these bytes.

        Args:
            location: the path in the tree.
            stream: read once to its end, without a temporary copy outside the store.
            chunker: as for ``put_file``.
            progress: as for ``put_file``.

        Raises:
            ImmutableError, ConflictError: as for ``put_file``.
        """
        _check_file_location(location)
        with self._storage.publish() as publication:
            with Importer(publication, self._options.with_chunker(chunker), progress=progress) as importer:
                entry = _entry(location, importer.import_stream(stream))
            new_bytes = publication.commit(Changes(entries=[entry]))
        _logger.debug("%s: %s, %d bytes new in the store", location, entry.cid, new_bytes)
        return entry

    def put_cid(self, location: MfsPath, cid: CID) -> MfsEntry:
        """Set a path to the content of a CID, which is a file that the store has already.

        Raises:
            IsDirectoryError: the CID is a directory.
            NotFoundError: a block is missing.
            ImmutableError, ConflictError: as for ``put_file``.
        """
        _check_file_location(location)
        with self._storage.publish(hold_existing=True) as publication:
            node = read_unixfs(self._storage.blocks, cid)
            if node.data.is_directory:
                msg = f"{cid} is a directory, but {location} must be a file; put each file of the directory instead"
                raise IsDirectoryError(msg)
            check_complete(self._storage.blocks, cid)
            entry = _entry(location, Imported(Link(cid, b"", node.dag_bytes), node.size_bytes))
            publication.commit(Changes(entries=[entry]))
        return entry

    def stat(self, location: MfsPath) -> MfsEntry | MfsDirectory | None:
        """Return the file or directory at a path, or None."""
        return self._storage.entries.stat(location.root, location.path)

    def list(self, location: MfsPath) -> Sequence[MfsEntry | MfsDirectory]:
        """Return the files and directories directly in a directory; [] if it does not exist."""
        found = self._storage.entries.list(location.root, location.path)
        return [item for item in found if isinstance(item, MfsDirectory) or not item.is_mark]

    def walk(self, location: MfsPath) -> Sequence[MfsEntry]:
        """Return the file at a path, or all files below it, from one snapshot, ordered by the bytes of their paths."""
        found = self._storage.entries.walk(location.root, location.path)
        return [entry for entry in found if not entry.is_mark]

    def delete(self, location: MfsPath) -> int:
        """Delete a file, or a directory with all below it, and return the number of entries. Frozen content is kept."""
        check_mutable(location)
        return self._storage.entries.delete(location.root, location.path)

    def snapshot(self, location: MfsPath, *, changes: Changes | None = None, only_hash: bool = False) -> Added:
        """Return the current CID of a file or directory, from one snapshot of the entries.

        Args:
            location: the file or directory.
            changes: names to add in the same step as the nodes of the directory.
            only_hash: compute the CID and store nothing.

        Raises:
            NotFoundError: the path does not exist.
        """
        return self._publish_snapshot(location, lambda _: changes or Changes(), only_hash=only_hash)

    def freeze(self, location: MfsPath, owner: str, *, state: PinState = PinState.PENDING) -> Added:
        """Take a snapshot, pin it for an owner, and make it readable as ``<location>/@<cid>``, all in one step.

        Raises:
            NotFoundError: the path does not exist.
        """

        def changes(cid: CID) -> Changes:
            return Changes(pins=[Pin(owner, cid, state)], frozen=[Frozen(location.root, location.path, cid)])

        return self._publish_snapshot(location, changes, only_hash=False)

    def _publish_snapshot(self, location: MfsPath, changes_for: Callable[[CID], Changes], *, only_hash: bool) -> Added:
        # Open the publication first: while it is open, gc deletes no content that the entries name.
        with HashOnlyPublication() if only_hash else self._storage.publish(hold_existing=True) as publication:
            entries = self._storage.entries.walk(location.root, location.path)
            if all(entry.is_mark for entry in entries):
                msg = f"there is no file at or below {location}; check the path"
                raise NotFoundError(msg)
            size_bytes = sum(entry.size_bytes for entry in entries)
            root = _build_tree(entries, location, NodeBuilder(publication.put, self._options.profile))
            new_bytes = publication.commit(changes_for(root.cid))
        return Added(root.cid, size_bytes, root.size_bytes or 0, new_bytes)

    def split_frozen(self, location: MfsPath) -> tuple[CID, str] | None:
        """Split a path ``…/@<cid>/rest`` into the CID and the rest.

        Returns:
            The CID and the path below it; None if no component of the path starts with ``@``.

        Raises:
            NotFoundError: the CID was not frozen under that path.
            InvalidCIDError: the text after the ``@`` is not a CID.
        """
        parts = location.path.split("/")
        for index, part in enumerate(parts):
            if part.startswith(FROZEN_PREFIX):
                cid = CID.parse(part.removeprefix(FROZEN_PREFIX))
                above = "/".join(parts[:index])
                if not self._storage.entries.is_frozen(Frozen(location.root, above, cid)):
                    msg = (
                        f"{cid} is not frozen under {MfsPath(location.root, above)} and cannot be read there; "
                        "use the path under which it was frozen"
                    )
                    raise NotFoundError(msg)
                return cid, "/".join(parts[index + 1 :])
        return None


def check_mutable(location: MfsPath) -> None:
    """Raise if a path is, or could be confused with, a path of frozen content.

    Raises:
        ImmutableError: a component of the path starts with ``@``.
    """
    if any(part.startswith(FROZEN_PREFIX) for part in location.path.split("/")):
        msg = (
            f"{location} cannot be written: names that start with '@' are reserved for frozen content; use another name"
        )
        raise ImmutableError(msg)


def _check_file_location(location: MfsPath) -> None:
    """Raise if a file cannot be written at a path."""
    check_mutable(location)
    if not location.path:
        msg = f"{location} is the top directory of a tree and cannot be a file; name a path below it"
        raise IsDirectoryError(msg)


def _entry(location: MfsPath, imported: Imported) -> MfsEntry:
    link = imported.link
    return MfsEntry(location.root, location.path, link.cid, imported.size_bytes, link.size_bytes or 0, time.time_ns())


def _files_below(directory: Path) -> Iterator[tuple[str, Path | None]]:
    """Yield the relative path of each file below a directory, with the file, and of each empty directory, with None.

    The order is that of the paths' bytes. Symlinks are followed; loops raise.
    """
    if not directory.is_dir():
        if directory.exists():
            msg = f"{str(directory)!r} is not a directory; name a directory"
            raise NotDirectoryError(msg)
        msg = f"there is no directory {str(directory)!r}; check the path"
        raise NotFoundError(msg)
    stack: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(directory, "", frozenset())]
    while stack:
        current, path, above = stack.pop()
        if not current.is_dir():
            yield path, current
            continue
        status = current.stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            msg = f"{str(current)!r} is a symlink to a directory that contains it; remove the symlink"
            raise InvalidPathError(msg)
        children = sorted(current.iterdir(), key=lambda child: os.fsencode(child.name), reverse=True)
        if not children:
            yield path, None
        stack += [(child, join_path(path, child.name), above | {identity}) for child in children]


def _build_tree(entries: Sequence[MfsEntry], location: MfsPath, nodes: NodeBuilder) -> Link:
    """Build the directories that entries imply, from the deepest up, and return a link to the root.

    If the only entry is the file at ``location`` itself, the link is to that file.
    """
    if len(entries) == 1 and entries[0].path == location.path:
        return Link(entries[0].cid, b"", entries[0].dag_bytes)
    skip = len(location.path) + 1 if location.path else 0
    directories: dict[str, list[Link]] = {"": []}
    for entry in entries:
        parent, _, name = entry.path[skip:].rpartition("/")
        _ensure_directory(directories, parent)
        if not entry.is_mark:
            directories[parent].append(Link(entry.cid, encode_name(name), entry.dag_bytes))
    for path in sorted(directories, key=lambda directory: directory.count("/") + bool(directory), reverse=True):
        link = nodes.build_directory(directories[path])
        if not path:
            return link
        parent, _, name = path.rpartition("/")
        directories[parent].append(replace(link, name=encode_name(name)))
    msg = f"no directory was built for {location}"  # the loop always ends at ""
    raise AssertionError(msg)


def _ensure_directory(directories: dict[str, list[Link]], path: str) -> None:
    """Add a directory without links, and its missing parents."""
    while path not in directories:
        directories[path] = []
        path = path.rpartition("/")[0]
