"""Importer: files, directories and streams become DAGs, with the CIDs that Kubo gives them.

The walk of the source tree is in ``source.py``, the import of one file in ``file_importer.py``; here the results
become directories.
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
from mlflow_ipfs.content.files.source import SourceKind, stat_source, walk
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025, Profile
from mlflow_ipfs.errors import InvalidPathError, IsDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.files.source import Source, Visit
    from mlflow_ipfs.content.storage.base import Publication


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome of adding content.

    Attributes:
        cid: root of what was added.
        size_bytes: sum of the sizes of its files.
        dag_bytes: sum of the sizes of its blocks, each link counted.
        new_bytes: how many bytes the store did not have before.
        hidden_left_out: how many hidden names were left out.
    """

    cid: CID
    size_bytes: int
    dag_bytes: int
    new_bytes: int = 0
    hidden_left_out: int = 0


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How files become DAGs.

    Attributes:
        profile: the parameters that decide the CID.
        chunker: where files are cut; None for the profile's fixed size.
        include_hidden: whether names in directories that start with a dot are included.
        preserve_mode: record POSIX permission bits. Makes every leaf a dag-pb node, as Kubo does:
            a raw leaf has no room for them.
        preserve_mtime: record modification times, with the same effect.
    """

    profile: Profile = UNIXFS_V1_2025
    chunker: Chunker | None = None
    include_hidden: bool = True
    preserve_mode: bool = False
    preserve_mtime: bool = False

    @property
    def effective_profile(self) -> Profile:
        """The profile with wrapped leaves where metadata is recorded."""
        if self.preserve_mode or self.preserve_mtime:
            return replace(self.profile, raw_leaves=False)
        return self.profile

    @property
    def effective_chunker(self) -> Chunker:
        """The chunker, or the one that the profile implies."""
        return self.chunker or FixedSizeChunker(self.profile.chunk_bytes)

    def cut_by(self, chunker: Chunker | None) -> ImportOptions:
        """Return the same options with another chunker, if one is given."""
        return self if chunker is None else replace(self, chunker=chunker)


@dataclass(frozen=True, slots=True)
class Imported:
    """What one path became.

    Attributes:
        link: a nameless link to the root, with the cumulative size of its blocks.
        size_bytes: sum of the sizes of all files in it.
    """

    link: Link
    size_bytes: int


class Importer:
    """Imports paths and streams into one publication. A context manager; not for sharing between threads.

    Args:
        publication: takes the blocks.
        options: how files become DAGs.
        progress: called with the number of bytes just read, on long files more than once.
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
        _logger.debug("import with profile %s, cut by %s", profile.name, chunker)
        self._nodes = NodeBuilder(publication.put, profile)
        self._files = FileImporter(publication, profile, chunker, progress or (lambda _: None))
        self.hidden_left_out = 0
        """How many hidden names were left out so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def import_path(self, path: str | os.PathLike[str], *, wrap: bool = False) -> Imported:
        """Import a file, a symlink (as itself), or a directory with all below it.

        Args:
            path: what to import.
            wrap: put the result into a directory of its own, under the last name of the path.

        Raises:
            NotFoundError: nothing is at the path.
            PermissionError: something cannot be read.
            InvalidPathError: a socket, device or pipe is in the way; or ``wrap``, and the path ends without a name.
            SourceChangedError: a file changed while it was read.
        """
        links: list[Link] = []  # of sources whose directory has not been built yet
        size_bytes = 0
        for visit in walk(os.fsencode(path), include_hidden=self._options.include_hidden):
            if visit.source.kind is SourceKind.DIRECTORY:
                link = self._build_directory(visit, links)
                del links[len(links) - visit.child_count :]
            else:
                single = self._import_single(visit.source)
                link = _link(single, visit.name)
                size_bytes += single.size_bytes
            links.append(link)
        (link,) = links
        return Imported(self._wrap(link, path) if wrap else link, size_bytes)

    def import_file(self, path: str | os.PathLike[str]) -> Imported:
        """Import a file; a symlink is followed.

        Raises:
            NotFoundError: nothing is at the path, or the symlink leads nowhere.
            IsDirectoryError: it is a directory.
            InvalidPathError: it is no file, or a symlink that leads in a circle.
            PermissionError, SourceChangedError: as for ``import_path``.
        """
        source = stat_source(os.fsencode(os.path.realpath(path)))
        if source.kind is SourceKind.DIRECTORY:
            msg = f"{os.fspath(path)!r} is a directory, and a file is needed"
            raise IsDirectoryError(msg)
        if source.kind is SourceKind.SYMLINK:
            msg = f"the symlink {os.fspath(path)!r} leads in a circle"
            raise InvalidPathError(msg)
        return _imported(self._import_single(source))

    def import_stream(self, stream: BinaryIO) -> Imported:
        """Import what is left of a stream as one file, without knowing its size beforehand.

        Raises:
            SettingsError: the chunker's cuts do not cover it.
        """
        return _imported(self._files.import_stream(stream))

    def _import_single(self, source: Source) -> Subtree:
        if source.kind is SourceKind.SYMLINK:
            return self._files.import_symlink(source, self._metadata(source))
        return self._files.import_file(source, self._metadata(source))

    def _build_directory(self, visit: Visit, links: list[Link]) -> Link:
        """Build a directory from the last links, which are those of its entries."""
        self.hidden_left_out += visit.hidden_left_out
        metadata = self._metadata(visit.source)
        entries = links[len(links) - visit.child_count :]
        link = self._nodes.build_directory(entries, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
        return replace(link, name=visit.name)

    def _wrap(self, link: Link, path: str | os.PathLike[str]) -> Link:
        return self._nodes.build_directory(
            [replace(link, name=encode_file_name(os.path.basename(os.path.abspath(path))))]
        )

    def _metadata(self, source: Source) -> Metadata:
        return Metadata(
            mode=source.status.st_mode & MODE_MASK if self._options.preserve_mode else None,
            mtime_ns=source.status.st_mtime_ns if self._options.preserve_mtime else None,
        )


def _link(single: Subtree, name: bytes = b"") -> Link:
    return Link(single.cid, name, single.dag_bytes)


def _imported(single: Subtree) -> Imported:
    return Imported(_link(single), single.size_bytes)
