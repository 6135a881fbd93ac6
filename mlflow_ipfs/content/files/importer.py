"""Import of files, directories and streams into DAGs with the same CIDs as Kubo's.

``source.py`` walks the source tree, and ``file_importer.py`` imports one file. This module builds the directories.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Self

from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.codecs.unixfs import MODE_MASK
from mlflow_ipfs.content.dag import encode_file_name
from mlflow_ipfs.content.files.chunker import Chunker, FixedSizeChunker
from mlflow_ipfs.content.files.file_importer import FileImporter, Metadata
from mlflow_ipfs.content.files.node_builder import NodeBuilder, Subtree
from mlflow_ipfs.content.files.source import SourceKind, follow, stat_source, walk
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025, Profile
from mlflow_ipfs.errors import InvalidPathError, IsDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.files.source import Source, Visit
    from mlflow_ipfs.content.storage.base import Publication

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Added:
    """The result of adding content.

    Attributes:
        cid: root of the content.
        size_bytes: sum of the sizes of its files.
        dag_bytes: sum of the sizes of its blocks. A block counts once for each link to it.
        new_bytes: number of bytes that the store did not have before.
        hidden_left_out: number of hidden names that were left out.
        symlinks: number of symlinks that were stored as links, without what they lead to.
    """

    cid: CID
    size_bytes: int
    dag_bytes: int
    new_bytes: int = 0
    hidden_left_out: int = 0
    symlinks: int = 0


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        profile: the parameters that determine the CID.
        chunker: decides where files are split; None for the profile's fixed chunk size.
        include_hidden: whether directory entries whose names start with a dot are included.
        follow_symlinks: whether a symlink is imported as the file or directory that it leads to.
        preserve_mode: whether POSIX permission bits are recorded. As in Kubo, every leaf is then a dag-pb node,
            because a raw leaf cannot store metadata.
        preserve_mtime: whether modification times are recorded, with the same effect on leaves.
    """

    profile: Profile = UNIXFS_V1_2025
    chunker: Chunker | None = None
    include_hidden: bool = True
    follow_symlinks: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False

    @property
    def effective_profile(self) -> Profile:
        """The profile, with dag-pb leaves if metadata is recorded."""
        if self.preserve_mode or self.preserve_mtime:
            return replace(self.profile, raw_leaves=False)
        return self.profile

    @property
    def effective_chunker(self) -> Chunker:
        """The chunker, or one with the profile's chunk size."""
        return self.chunker or FixedSizeChunker(self.profile.chunk_bytes)

    def with_chunker(self, chunker: Chunker | None) -> ImportOptions:
        """Return these options with another chunker; unchanged for None."""
        return self if chunker is None else replace(self, chunker=chunker)


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of the import of one path or stream.

    Attributes:
        link: a nameless link to the root, with the cumulative size of the blocks.
        size_bytes: sum of the sizes of all files.
    """

    link: Link
    size_bytes: int


class Importer:
    """Importer of paths and streams into one publication. A context manager; not safe for concurrent use by threads.

    Args:
        publication: receives the blocks.
        options: options of the import; None for the defaults.
        progress: called with the number of bytes just read; several times for a large file.
    """

    def __init__(
        self,
        publication: Publication,
        options: ImportOptions | None = None,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._options = options or ImportOptions()
        profile, chunker = self._options.effective_profile, self._options.effective_chunker
        _logger.debug("import with profile %s and chunker %s", profile.name, chunker)
        self._nodes = NodeBuilder(publication.put, profile)
        self._files = FileImporter(publication, profile, chunker, progress or (lambda _: None))
        self.hidden_left_out = 0
        """Number of hidden names that were left out so far."""
        self.symlinks = 0
        """Number of symlinks that were imported as links so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def import_path(self, path: str | os.PathLike[str]) -> Imported:
        """Import a file, a symlink, or a directory with everything below it.

        Raises:
            NotFoundError: the path does not exist, or a symlink to follow leads to nothing.
            PermissionError: a file or directory cannot be read.
            InvalidPathError: the path or a path below it is a socket, device or pipe, or symlinks to follow form a loop.
            SourceChangedError: a file changed while it was read.
        """
        links: list[Link] = []  # to sources whose directory is not built yet
        size_bytes = 0
        options = self._options
        visits = walk(os.fsencode(path), include_hidden=options.include_hidden, follow_symlinks=options.follow_symlinks)
        for visit in visits:
            if visit.source.kind is SourceKind.DIRECTORY:
                link = self._build_directory(visit, links)
                del links[len(links) - visit.child_count :]
            else:
                single = self._import_single(visit.source)
                link = _link(single, visit.name)
                size_bytes += single.size_bytes
            links.append(link)
        (link,) = links
        return Imported(link, size_bytes)

    def import_together(self, paths: Mapping[str, str | os.PathLike[str]]) -> Imported:
        """Import paths into one new directory, each under its name in the mapping. The errors are those of ``import_path``.

        Raises:
            InvalidPathError: a name is not allowed in a directory.
        """
        names = [encode_file_name(name) for name in paths]
        found = [self.import_path(path) for path in paths.values()]
        links = [replace(one.link, name=name) for name, one in zip(names, found, strict=True)]
        return Imported(self._nodes.build_directory(links), sum(one.size_bytes for one in found))

    def import_file(self, path: str | os.PathLike[str]) -> Imported:
        """Import a file. Symlinks are followed.

        Raises:
            NotFoundError: the path, or the target of a symlink, does not exist.
            IsDirectoryError: the path is a directory.
            InvalidPathError: the path is a socket, device or pipe, or its symlinks form a loop.
            PermissionError, SourceChangedError: as for ``import_path``.
        """
        source = follow(stat_source(os.fsencode(path)))
        if source.kind is SourceKind.DIRECTORY:
            msg = f"{os.fspath(path)!r} is a directory, but a file is required; name a file in it"
            raise IsDirectoryError(msg)
        return _imported(self._import_single(source))

    def import_stream(self, stream: BinaryIO) -> Imported:
        """Import the rest of a stream as one file. The size need not be known in advance.

        Raises:
            SettingsError: the chunks of the chunker do not cover the stream.
        """
        return _imported(self._files.import_stream(stream))

    def _import_single(self, source: Source) -> Subtree:
        if source.kind is SourceKind.SYMLINK:
            self.symlinks += 1
            return self._files.import_symlink(source, self._metadata(source))
        return self._files.import_file(source, self._metadata(source))

    def _build_directory(self, visit: Visit, links: list[Link]) -> Link:
        """Build a directory. The links to its entries are the last ``child_count`` items of ``links``."""
        self.hidden_left_out += visit.hidden_left_out
        metadata = self._metadata(visit.source)
        entries = links[len(links) - visit.child_count :]
        link = self._nodes.build_directory(entries, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
        return replace(link, name=visit.name)

    def _metadata(self, source: Source) -> Metadata:
        return Metadata(
            mode=source.status.st_mode & MODE_MASK if self._options.preserve_mode else None,
            mtime_ns=source.status.st_mtime_ns if self._options.preserve_mtime else None,
        )


def named_sources(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Return one or more paths to import by their names, the last components. A symlink is followed, and gives the name.

    Raises:
        InvalidPathError: two paths have the same name.
        NotFoundError: a path does not exist, or is a symlink to nothing.
    """
    found: dict[str, str] = {}
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        name = os.path.basename(os.path.abspath(path))
        if name in found:
            msg = (
                f"{os.fspath(path)!r} and {found[name]!r} have the same name, and one directory can contain one of them"
            )
            raise InvalidPathError(msg)
        source = stat_source(os.fsencode(path))
        found[name] = os.fspath(path) if source.kind is not SourceKind.SYMLINK else os.fsdecode(follow(source).path)
    return found


def _link(single: Subtree, name: bytes = b"") -> Link:
    return Link(single.cid, name, single.dag_bytes)


def _imported(single: Subtree) -> Imported:
    return Imported(_link(single), single.size_bytes)
