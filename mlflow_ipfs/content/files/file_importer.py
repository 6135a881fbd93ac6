"""Import of one file: bytes are cut and hashed as leaves, the nodes above them are built, both are published."""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.content.codecs.dag_pb import encode_node
from mlflow_ipfs.content.codecs.unixfs import (
    LeafEncoding,
    NodeType,
    UnixFSData,
    block_of_leaf,
    encode_data,
    encode_symlink,
)
from mlflow_ipfs.content.files.chunker import FixedSizeChunker, cut_lengths
from mlflow_ipfs.content.files.leaf_pipeline import LeafPipeline, leaf_rows
from mlflow_ipfs.content.files.node_builder import NodeBuilder, Subtree
from mlflow_ipfs.content.files.source_reader import open_source, read_symlink
from mlflow_ipfs.content.files.stream_reader import SpooledFile, StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.files.source import Source
    from mlflow_ipfs.content.profiles import Profile
    from mlflow_ipfs.content.storage.base import FileWriter, Publication

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is recorded of a source beside its bytes; nothing unless asked for."""

    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether a file's node stays as it is without metadata. Kubo records no mode of 0."""
        return not self.mode and self.mtime_ns is None


NO_METADATA: Final = Metadata()


class FileImporter:
    """Imports files, symlinks and streams, one after the other, into one publication. Not for sharing between threads.

    Args:
        publication: takes the blocks and the files.
        profile: decides CID version, leaves and nodes. A file of at least one of its chunks is kept contiguous,
            so that it can be read without copying; the blocks of a smaller file are kept with other small blocks.
        chunker: decides where files are cut.
        progress: called with the number of bytes just read, on long files more than once.
    """

    def __init__(
        self, publication: Publication, profile: Profile, chunker: Chunker, progress: Callable[[int], None]
    ) -> None:
        self._publication = publication
        self._profile = profile
        self._chunker = chunker
        self._progress = progress
        self._nodes = NodeBuilder(publication.put, profile)
        self._form = LeafEncoding.RAW if profile.raw_leaves else LeafEncoding.UNIXFS_FILE
        self._started_pipeline: LeafPipeline | None = None

    def close(self) -> None:
        """Stop the threads."""
        if self._started_pipeline is not None:
            self._started_pipeline.close()

    def import_file(self, source: Source, metadata: Metadata) -> Subtree:
        """Import a regular file.

        Raises:
            PermissionError: it cannot be read.
            SourceChangedError: it is not what it was when it was examined, or changed while it was read.
            SettingsError: the chunker's cuts do not cover it.
        """
        size_bytes = source.status.st_size
        with open_source(source, self._progress) as reader:
            if size_bytes < self._profile.chunk_bytes or _may_be_one_wrapped_leaf(size_bytes, metadata):
                _logger.debug("%s: %d bytes, kept as small blocks", source, size_bytes)
                return self._import_small(reader.read_all(), metadata)
            _logger.debug("%s: %d bytes, kept as one contiguous file", source, size_bytes)
            with reader.for_chunker() as file:
                return self._import_large(reader.fill, cut_lengths(self._chunker, file, size_bytes), metadata)

    def import_symlink(self, source: Source, metadata: Metadata) -> Subtree:
        """Import a symlink as itself.

        Raises:
            SourceChangedError: it is not a symlink any more.
        """
        _logger.debug("%s: symlink, kept as itself", source)
        # A symlink's own permissions mean nothing, so Kubo records its mtime only.
        block = encode_symlink(read_symlink(source), mtime_ns=metadata.mtime_ns)
        return Subtree(self._nodes.put_node(block), 0, len(block))

    def import_stream(self, stream: BinaryIO) -> Subtree:
        """Import what is left of a stream as one file, which gets the CID that a file with these bytes gets.

        The stream is read once, and its bytes are hashed while they are written. Only for a chunker whose cuts
        are not of one size are they written first, and read back for the chunker and the hash.

        Raises:
            SettingsError: the chunker's cuts do not cover it.
        """
        reader = StreamReader(stream, self._progress)
        head = reader.peek(self._profile.chunk_bytes)
        if len(head) < self._profile.chunk_bytes:
            _logger.debug("stream: %d bytes, kept as small blocks", len(head))
            return self._import_small(head, NO_METADATA)
        if isinstance(self._chunker, FixedSizeChunker):
            _logger.debug("stream: kept as one contiguous file, cut while it is read")
            return self._import_large(reader.fill, repeat(self._chunker.chunk_bytes), NO_METADATA)
        return self._import_spooled(reader)

    def _import_small(self, data: bytes, metadata: Metadata) -> Subtree:
        """Import a file that fits into memory as single blocks."""
        ends = accumulate(cut_lengths(self._chunker, io.BytesIO(data), len(data)), initial=0)
        pieces = [data[start:end] for start, end in pairwise(ends)] or [b""]
        if len(pieces) == 1:
            return self._one_leaf(pieces[0], metadata)
        leaves = []
        for piece in pieces:
            block = block_of_leaf(piece, self._form)
            leaf = self._nodes.put_leaf(block, raw=self._form is LeafEncoding.RAW)
            leaves.append(Subtree(leaf.cid, len(piece), len(block)))
        return self._nodes.build_file(leaves, mode=metadata.mode, mtime_ns=metadata.mtime_ns)

    def _one_leaf(self, data: bytes, metadata: Metadata) -> Subtree:
        if metadata.is_empty:
            block = block_of_leaf(data, self._form)
        else:
            fields = UnixFSData(NodeType.FILE, data or None, len(data), mode=metadata.mode, mtime_ns=metadata.mtime_ns)
            block = encode_node((), encode_data(fields))
        leaf = self._nodes.put_leaf(block, raw=self._form is LeafEncoding.RAW)
        return Subtree(leaf.cid, len(data), len(block))

    def _import_large(self, fill: Callable[[memoryview], int], lengths: Iterable[int], metadata: Metadata) -> Subtree:
        """Import a contiguous file: each cut is hashed while it is written."""
        with self._new_file() as writer:
            return self._finish(writer, self._pipeline.run(fill, lengths, writer.write), metadata)

    def _import_spooled(self, reader: StreamReader) -> Subtree:
        """Import a contiguous file that is written before it is cut, because its chunker reads it or needs its size."""
        _logger.debug("stream: kept as one contiguous file, written before it is cut")
        with self._new_file(read_back=True) as writer:
            size_bytes = _copy(reader.fill, writer.write)
            file = cast("BinaryIO", SpooledFile(writer, size_bytes))
            lengths = cut_lengths(self._chunker, file, size_bytes)
            leaves = self._pipeline.run(SpooledFile(writer, size_bytes).readinto, lengths, _is_written)
            return self._finish(writer, leaves, NO_METADATA)

    def _finish(self, writer: FileWriter, leaves: Iterator[Subtree], metadata: Metadata) -> Subtree:
        kept = list(leaves)
        root = self._nodes.build_file(kept, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
        writer.finish(root.cid, leaf_rows(kept, self._form))
        return root

    @contextmanager
    def _new_file(self, *, read_back: bool = False) -> Iterator[FileWriter]:
        """A file of the publication, which is discarded if the block raises."""
        writer = self._publication.begin_file(read_back=read_back)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise

    @property
    def _pipeline(self) -> LeafPipeline:
        if self._started_pipeline is None:
            self._started_pipeline = LeafPipeline(self._form, self._profile.cid_version)
        return self._started_pipeline


def _may_be_one_wrapped_leaf(size_bytes: int, metadata: Metadata) -> bool:
    """Whether metadata may have to be recorded in the only leaf, which then is not a plain slice of the file."""
    return not metadata.is_empty and size_bytes <= MAX_LEAF_BYTES


def _copy(fill: Callable[[memoryview], int], write: Callable[[memoryview], None]) -> int:
    """Copy until the source ends; returns how many bytes that were."""
    buffer = memoryview(bytearray(MAX_LEAF_BYTES))
    size_bytes = 0
    while filled := fill(buffer):
        write(buffer[:filled])
        size_bytes += filled
    return size_bytes


def _is_written(_: memoryview) -> None:
    """Accept bytes that were read back from where they are kept."""
