"""Importer: files, folders and streams become DAGs, with the CIDs that Kubo gives them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise, repeat
from typing import TYPE_CHECKING, BinaryIO, Self

from mlflow_ipfs.content.blockstore.interface import MAX_LEAF_BYTES, LeafForm
from mlflow_ipfs.content.chunker import Chunker, FixedSizeChunker
from mlflow_ipfs.content.dagpb import Link, encode_node
from mlflow_ipfs.content.leaf_pipeline import LeafPipeline, leaf_rows
from mlflow_ipfs.content.node_builder import NodeBuilder, Subtree
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025, Profile
from mlflow_ipfs.content.source import (
    SourceKind,
    SourceReader,
    list_folder,
    look_at,
    look_at_child,
    open_source,
    read_symlink,
)
from mlflow_ipfs.content.unixfs import MODE_MASK, NodeType, UnixFSData, block_of_leaf, encode_data, encode_symlink
from mlflow_ipfs.errors import InvalidPathError, IsAFolderError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from mlflow_ipfs.content.blockstore.interface import FileWriter, Publication
    from mlflow_ipfs.content.source import Source


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How files become DAGs.

    Attributes:
        profile: the parameters that decide the CID.
        chunker: where files are cut; None for the profile's fixed size.
        include_hidden: whether names in folders that start with a dot are included.
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


@dataclass(frozen=True, slots=True)
class Imported:
    """What one path became.

    Attributes:
        link: a nameless link to the root, with the cumulative size of its blocks.
        size_bytes: sum of the sizes of all files in it.
    """

    link: Link
    size_bytes: int


@dataclass(slots=True)
class _Level:
    """A folder whose names are being worked through."""

    source: Source
    name: bytes
    todo: list[bytes]
    links: list[Link] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What is recorded of a file beside its bytes; nothing unless asked for."""

    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        return not self.mode and self.mtime_ns is None


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
        self._publication = publication
        self._options = options or ImportOptions()
        self._progress = progress or (lambda _: None)
        self._profile = self._options.effective_profile
        self._chunker = self._options.chunker or FixedSizeChunker(self._profile.chunk_bytes)
        self._nodes = NodeBuilder(publication.put, self._profile)
        self._form = LeafForm.RAW if self._profile.raw_leaves else LeafForm.UNIXFS_FILE
        self._pipeline: LeafPipeline | None = None
        self.hidden_left_out = 0
        """How many hidden names were left out so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipeline is not None:
            self._pipeline.close()

    def import_path(self, path: str | os.PathLike[str]) -> Imported:
        """Import a file, a symlink (as itself), or a folder with all below it.

        Raises:
            NotFoundError: nothing is at the path.
            PermissionError: something cannot be read.
            InvalidPathError: a socket, device or pipe is in the way.
            SourceChangedError: a file changed while it was read.
        """
        source = look_at(os.fsencode(path))
        if source.kind is SourceKind.FOLDER:
            return self._import_folder(source)
        return self._import_single(source)

    def import_file(self, path: str | os.PathLike[str]) -> Imported:
        """Import a file; a symlink is followed.

        Raises:
            NotFoundError: nothing is at the path, or the symlink leads nowhere.
            IsAFolderError: it is a folder.
            InvalidPathError: it is no file, or a symlink that leads in a circle.
            PermissionError, SourceChangedError: as for ``import_path``.
        """
        source = look_at(os.fsencode(os.path.realpath(path)))
        if source.kind is SourceKind.FOLDER:
            msg = f"{os.fspath(path)!r} is a folder, and a file is needed"
            raise IsAFolderError(msg)
        if source.kind is SourceKind.SYMLINK:
            msg = f"the symlink {os.fspath(path)!r} leads in a circle"
            raise InvalidPathError(msg)
        return self._import_single(source)

    def import_stream(self, stream: BinaryIO) -> Imported:
        """Import what is left of a stream as one file, without knowing its size beforehand.

        Cut by the chunker if its cuts are of one size, else by the profile.
        """
        head = _read_up_to(stream, self._profile.chunk_bytes)
        if len(head) < self._profile.chunk_bytes:
            self._progress(len(head))
            return self._import_small(head, _Metadata())
        chunker = self._chunker
        size = chunker.chunk_bytes if isinstance(chunker, FixedSizeChunker) else self._profile.chunk_bytes
        rest = memoryview(head)

        def fill(view: memoryview) -> int:
            nonlocal rest
            taken = min(len(view), len(rest))
            view[:taken] = rest[:taken]
            rest = rest[taken:]
            return taken + _read_into(stream, view[taken:])

        return self._import_pieces(fill, repeat(size), _Metadata())

    def _import_single(self, source: Source) -> Imported:
        metadata = self._metadata(source)
        if source.kind is SourceKind.FILE:
            return self._import_file(source, metadata)
        # A symlink's own permissions mean nothing, so Kubo records its mtime only.
        block = encode_symlink(read_symlink(source), mtime_ns=metadata.mtime_ns)
        return Imported(Link(self._nodes.put_node(block), b"", len(block)), 0)

    def _metadata(self, source: Source) -> _Metadata:
        return _Metadata(
            mode=source.status.st_mode & MODE_MASK if self._options.preserve_mode else None,
            mtime_ns=source.status.st_mtime_ns if self._options.preserve_mtime else None,
        )

    def _import_folder(self, source: Source) -> Imported:
        """Walk without recursion: folders may be nested deeper than Python's stack."""
        levels = [self._enter(source, b"")]
        while True:
            level = levels[-1]
            if level.todo:
                name = level.todo.pop()
                child = look_at_child(level.source, name)
                if child.kind is SourceKind.FOLDER:
                    levels.append(self._enter(child, name))
                else:
                    _add_child(level, name, self._import_single(child))
                continue
            done = self._leave(levels.pop())
            if not levels:
                return done
            _add_child(levels[-1], level.name, done)

    def _enter(self, source: Source, name: bytes) -> _Level:
        names = list_folder(source.path)
        if not self._options.include_hidden:
            visible = [name for name in names if not name.startswith(b".")]
            self.hidden_left_out += len(names) - len(visible)
            names = visible
        return _Level(source, name, names[::-1])  # popped from the end: byte order

    def _leave(self, level: _Level) -> Imported:
        metadata = self._metadata(level.source)
        link = self._nodes.build_folder(level.links, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
        return Imported(link, level.size_bytes)

    def _import_file(self, source: Source, metadata: _Metadata) -> Imported:
        size_bytes = source.status.st_size
        with open_source(source) as descriptor:
            reader = SourceReader(source, descriptor)
            if size_bytes < self._profile.chunk_bytes or self._may_be_one_wrapped_leaf(size_bytes, metadata):
                data = bytearray(size_bytes)
                reader.fill(memoryview(data))
                reader.check_end()
                self._progress(size_bytes)
                return self._import_small(bytes(data), metadata)
            # The chunker may read the very same file: its position is not ours, because we read by offset.
            with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
                lengths = _lengths(self._chunker.cuts(file, size_bytes), size_bytes)
                imported = self._import_pieces(reader.fill, lengths, metadata)
            reader.check_end()
            return imported

    @staticmethod
    def _may_be_one_wrapped_leaf(size_bytes: int, metadata: _Metadata) -> bool:
        """Metadata of a file with one leaf stands in that leaf, which then is no plain slice of the file."""
        return not metadata.is_empty and size_bytes <= MAX_LEAF_BYTES

    def _import_small(self, data: bytes, metadata: _Metadata) -> Imported:
        """A file of less than one chunk of the profile: its blocks go where small blocks go."""
        cuts = self._chunker.cuts(io.BytesIO(data), len(data))
        ends = accumulate(_lengths(cuts, len(data)), initial=0)
        pieces = [data[start:end] for start, end in pairwise(ends)] or [b""]
        if len(pieces) == 1:
            return self._one_leaf(pieces[0], metadata)
        leaves = []
        for piece in pieces:
            block = block_of_leaf(piece, self._form)
            leaf = self._nodes.put_leaf(block, raw=self._form is LeafForm.RAW)
            leaves.append(Subtree(leaf.cid, len(piece), len(block)))
        return _imported(self._nodes.build_file(leaves, mode=metadata.mode, mtime_ns=metadata.mtime_ns))

    def _one_leaf(self, data: bytes, metadata: _Metadata) -> Imported:
        if metadata.is_empty:
            block = block_of_leaf(data, self._form)
        else:
            fields = UnixFSData(NodeType.FILE, data or None, len(data), mode=metadata.mode, mtime_ns=metadata.mtime_ns)
            block = encode_node((), encode_data(fields))
        leaf = self._nodes.put_leaf(block, raw=self._form is LeafForm.RAW)
        return Imported(Link(leaf.cid, b"", len(block)), len(data))

    def _import_pieces(
        self, fill: Callable[[memoryview], int], lengths: Iterator[int], metadata: _Metadata
    ) -> Imported:
        """A file of one chunk or more: kept contiguous, so that it can be read without copying."""
        if self._pipeline is None:
            self._pipeline = LeafPipeline(self._form, self._profile.cid_version)
        writer = self._publication.begin_file()
        try:
            leaves = list(self._pipeline.run(fill, lengths, partial(self._write, writer)))
            root = self._nodes.build_file(leaves, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
            writer.finish(root.cid, leaf_rows(leaves, self._form))
        except BaseException:
            writer.discard()
            raise
        return _imported(root)

    def _write(self, writer: FileWriter, view: memoryview) -> None:
        writer.write(view)
        self._progress(len(view))


def _imported(file: Subtree) -> Imported:
    return Imported(Link(file.cid, b"", file.dag_bytes), file.size_bytes)


def _add_child(level: _Level, name: bytes, child: Imported) -> None:
    level.links.append(replace(child.link, name=name))
    level.size_bytes += child.size_bytes


def _lengths(cuts: Iterator[int], size_bytes: int) -> Iterator[int]:
    """Lengths of the cuts that end at the given offsets.

    Raises:
        SettingsError: a cut is empty or too long, or the cuts do not cover the file.
    """
    start = 0
    for end in cuts:
        if not start < end <= start + MAX_LEAF_BYTES:
            msg = f"the chunker cut from {start} to {end}: a cut has 1 to {MAX_LEAF_BYTES} bytes"
            raise SettingsError(msg)
        yield end - start
        start = end
    if start != size_bytes:
        msg = f"the last cut of the chunker ends at byte {start} of {size_bytes}"
        raise SettingsError(msg)


def _read_into(stream: BinaryIO, view: memoryview) -> int:
    """Fill a buffer from a stream, which may give less than asked for at a time."""
    filled = 0
    while filled < len(view):
        piece = stream.read(len(view) - filled)
        if not piece:
            break
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled


def _read_up_to(stream: BinaryIO, size_bytes: int) -> bytes:
    buffer = bytearray(size_bytes)
    return bytes(memoryview(buffer)[: _read_into(stream, memoryview(buffer))])
