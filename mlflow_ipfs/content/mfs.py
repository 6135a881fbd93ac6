"""Mutable file trees, ``mfs://<root>/path``: files come and go, content stays what it is.

``mfs://<root>/…/@<cid>[/path]`` is frozen content below a mutable path: read-only, and only for
CIDs that were frozen under that very path.
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
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import ImmutableError, InvalidPathError, IsDirectoryError, NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.names.entries import MfsDirectory
    from mlflow_ipfs.content.storage.base import Storage

_logger = logging.getLogger(__name__)

FROZEN_PREFIX: Final = "@"


@dataclass(frozen=True, slots=True)
class MfsPath:
    """A place in a mutable tree.

    Attributes:
        root: the tree's name.
        path: ``a/b/c``, without slashes at its ends; ``""`` for the top.
    """

    root: str
    path: str = ""

    def __post_init__(self) -> None:
        parts = split_path(self.path)
        if not is_safe_name(encode_name(self.root)) or self.root.startswith(FROZEN_PREFIX):
            msg = f"{self.root!r} cannot name a mutable tree (mfs://<root>/path)"
            raise InvalidPathError(msg)
        encode_name(self.path)  # raises where a name is no text
        object.__setattr__(self, "path", "/".join(parts))

    @classmethod
    def parse(cls, uri: str) -> MfsPath:
        """Read ``mfs://<root>/path``. Names stand in it as they are, as in MLflow's artifact URIs: nothing is escaped.

        Raises:
            InvalidPathError: another scheme, no root, a ``..``, or what URI parsers take for a query or a fragment.
        """
        scheme, _, rest = uri.partition("://")
        if scheme.lower() != "mfs" or "?" in rest or "#" in rest:
            msg = f"{uri!r} is no mutable path; write mfs://<root>/path, without '?' and '#'"
            raise InvalidPathError(msg)
        root, _, path = rest.partition("/")
        return cls(root, path)

    def join(self, path: str) -> MfsPath:
        """The place at a relative path below this one."""
        return MfsPath(self.root, f"{self.path}/{path}")

    def __str__(self) -> str:
        return f"mfs://{self.root}/{self.path}" if self.path else f"mfs://{self.root}"


class MutableFiles:
    """The mutable trees of a store, seen as files. Last writer wins per path.

    Args:
        storage: keeps blocks and entries.
        options: how files become DAGs.
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
            location: the path.
            source: the file; a symlink is followed.
            chunker: where to cut; default the store's.
            progress: called with the number of bytes just read.

        Raises:
            ImmutableError: the path is frozen.
            ConflictError: a directory is there, or a file where a directory is needed.
            NotFoundError, IsDirectoryError, SourceChangedError: about the source.
        """
        return self._put_sources([(location, source)], chunker, progress)[0]

    def put_tree(
        self,
        location: MfsPath,
        directory: Path,
        *,
        chunker: Chunker | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Sequence[MfsEntry]:
        """Publish every file of a directory, hidden ones too, in one step. Symlinks are followed, as MLflow does.

        Empty directories vanish: entries are files.

        Args:
            location: the directory's path in the tree.
            directory: the directory on disk.
            chunker: where to cut; default the store's.
            progress: called with the number of bytes just read.

        Raises:
            NotDirectoryError: the source is a file.
            ImmutableError, ConflictError, NotFoundError, SourceChangedError: as for ``put_file``.
        """
        sources = [(location.join(path), source) for path, source in _files_below(directory)]
        return self._put_sources(sources, chunker, progress) if sources else []

    def _put_sources(
        self,
        sources: Sequence[tuple[MfsPath, Path]],
        chunker: Chunker | None,
        progress: Callable[[int], None] | None,
    ) -> Sequence[MfsEntry]:
        for location, _ in sources:
            _check_file_place(location)
        with self._storage.publish() as publication:
            with Importer(publication, self._options.with_chunker(chunker), progress=progress) as importer:
                entries = [_entry(location, importer.import_file(source)) for location, source in sources]
            new_bytes = publication.commit(Changes(entries=entries))
        _logger.debug("mfs://%s: put %d files, %d bytes new in the store", entries[0].root, len(entries), new_bytes)
        return entries

    def put_stream(
        self,
        location: MfsPath,
        stream: BinaryIO,
        *,
        chunker: Chunker | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> MfsEntry:
        """Publish what is left of a stream as a file, with the CID that ``put_file`` gives to a file of these bytes.

        Args:
            location: the path.
            stream: read once, to its end, without a temporary copy outside the store.
            chunker: where to cut; default the store's.
            progress: called with the number of bytes just read.

        Raises:
            ImmutableError, ConflictError: as for ``put_file``.
        """
        _check_file_place(location)
        with self._storage.publish() as publication:
            with Importer(publication, self._options.with_chunker(chunker), progress=progress) as importer:
                entry = _entry(location, importer.import_stream(stream))
            new_bytes = publication.commit(Changes(entries=[entry]))
        _logger.debug("%s: %s, %d bytes new in the store", location, entry.cid, new_bytes)
        return entry

    def put_cid(self, location: MfsPath, cid: CID) -> MfsEntry:
        """Let a path stand for a file that is in the store already."""
        _check_file_place(location)
        with self._storage.publish(hold_existing=True) as publication:
            node = read_unixfs(self._storage.blocks, cid)
            if node.data.is_directory:
                msg = f"{cid} is a directory; entries of {location} are files"
                raise IsDirectoryError(msg)
            check_complete(self._storage.blocks, cid)
            entry = _entry(location, Imported(Link(cid, b"", node.dag_bytes), node.size_bytes))
            publication.commit(Changes(entries=[entry]))
        return entry

    def stat(self, location: MfsPath) -> MfsEntry | MfsDirectory | None:
        """What is at a path, or None."""
        return self._storage.entries.stat(location.root, location.path)

    def list(self, location: MfsPath) -> Sequence[MfsEntry | MfsDirectory]:
        """Files and directories directly in a directory; [] if there are none."""
        return self._storage.entries.list(location.root, location.path)

    def walk(self, location: MfsPath) -> Sequence[MfsEntry]:
        """Return the file at a path, or every file below it, from one snapshot, in order of path bytes."""
        return self._storage.entries.walk(location.root, location.path)

    def delete(self, location: MfsPath) -> int:
        """Remove a file, or all files below a directory. Returns how many; content that is frozen stays."""
        check_mutable(location)
        return self._storage.entries.delete(location.root, location.path)

    def snapshot(self, location: MfsPath, *, changes: Changes | None = None, only_hash: bool = False) -> Added:
        """Compute the CID that a file or directory has at this moment, from one snapshot of the entries.

        Args:
            location: the file or directory.
            changes: names to add in the same step as the directory's nodes.
            only_hash: keep nothing.

        Raises:
            NotFoundError: nothing is there.
        """
        return self._publish_snapshot(location, lambda _: changes or Changes(), only_hash=only_hash)

    def freeze(self, location: MfsPath, owner: str, *, state: PinState = PinState.PENDING) -> Added:
        """Take a snapshot, pin it for an owner, and allow ``<location>/@<cid>``, all in one step."""

        def changes(cid: CID) -> Changes:
            return Changes(pins=[Pin(owner, cid, state)], frozen=[Frozen(location.root, location.path, cid)])

        return self._publish_snapshot(location, changes, only_hash=False)

    def _publish_snapshot(self, location: MfsPath, changes_for: Callable[[CID], Changes], *, only_hash: bool) -> Added:
        # The publication comes first: while it is open, no gc can drop what the entries name.
        with HashOnlyPublication() if only_hash else self._storage.publish(hold_existing=True) as publication:
            entries = self._storage.entries.walk(location.root, location.path)
            if not entries:
                msg = f"there is no file at or below {location}"
                raise NotFoundError(msg)
            size_bytes = sum(entry.size_bytes for entry in entries)
            root = _build_tree(entries, location, NodeBuilder(publication.put, self._options.profile))
            new_bytes = publication.commit(changes_for(root.cid))
        return Added(root.cid, size_bytes, root.size_bytes or 0, new_bytes)

    def split_frozen(self, location: MfsPath) -> tuple[CID, str] | None:
        """Take ``…/@<cid>/rest`` apart.

        Returns:
            The CID and the path below it; None if no part of the path starts with ``@``.

        Raises:
            NotFoundError: that CID was not frozen under that path.
            InvalidCIDError: what follows the ``@`` is no CID.
        """
        parts = location.path.split("/")
        for index, part in enumerate(parts):
            if part.startswith(FROZEN_PREFIX):
                cid = CID.parse(part.removeprefix(FROZEN_PREFIX))
                above = "/".join(parts[:index])
                if not self._storage.entries.is_frozen(Frozen(location.root, above, cid)):
                    msg = f"{cid} is not frozen under {MfsPath(location.root, above)}, so it cannot be read from there"
                    raise NotFoundError(msg)
                return cid, "/".join(parts[index + 1 :])
        return None


def check_mutable(location: MfsPath) -> None:
    """Refuse a path that names, or would look like, frozen content.

    Raises:
        ImmutableError: a part of the path starts with ``@``.
    """
    if any(part.startswith(FROZEN_PREFIX) for part in location.path.split("/")):
        msg = f"{location} cannot be written: names that start with '@' stand for frozen content"
        raise ImmutableError(msg)


def _check_file_place(location: MfsPath) -> None:
    check_mutable(location)
    if not location.path:
        msg = f"{location} is the top of a tree, so it is a directory and no file; name a path below it"
        raise IsDirectoryError(msg)


def _entry(location: MfsPath, imported: Imported) -> MfsEntry:
    link = imported.link
    return MfsEntry(location.root, location.path, link.cid, imported.size_bytes, link.size_bytes or 0, time.time_ns())


def _files_below(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory with its relative path, in byte order; symlinks followed, loops refused."""
    if not directory.is_dir():
        msg = (
            f"{str(directory)!r} is no directory" if directory.exists() else f"there is no directory {str(directory)!r}"
        )
        raise NotDirectoryError(msg) if directory.exists() else NotFoundError(msg)
    stack: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(directory, "", frozenset())]
    while stack:
        current, path, above = stack.pop()
        if not current.is_dir():
            yield path, current
            continue
        status = current.stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            msg = f"{str(current)!r} leads back to a directory that it is in"
            raise InvalidPathError(msg)
        children = sorted(current.iterdir(), key=lambda child: os.fsencode(child.name), reverse=True)
        stack += [(child, join_path(path, child.name), above | {identity}) for child in children]


def _build_tree(entries: Sequence[MfsEntry], location: MfsPath, nodes: NodeBuilder) -> Link:
    """Build the directories that entries imply, from the deepest up; a lone file is itself."""
    if len(entries) == 1 and entries[0].path == location.path:
        return Link(entries[0].cid, b"", entries[0].dag_bytes)
    skip = len(location.path) + 1 if location.path else 0
    directories: dict[str, list[Link]] = {"": []}
    for entry in entries:
        parent, _, name = entry.path[skip:].rpartition("/")
        _ensure_directory(directories, parent)
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
    while path not in directories:
        directories[path] = []
        path = path.rpartition("/")[0]
