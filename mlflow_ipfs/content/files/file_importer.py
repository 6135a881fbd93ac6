"""Import of one file: its bytes become leaves, a balanced tree of nodes is built above them, and both are published."""

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
from mlflow_ipfs.content.files.chunker import FixedSizeChunker, chunk_lengths
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
    """Metadata of a source that is recorded in its node. Empty unless the caller asks for it."""

    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether a file's node is the same as without metadata. As in Kubo, a mode of 0 is not recorded."""
        return not self.mode and self.mtime_ns is None


NO_METADATA: Final = Metadata()


class FileImporter:
    """Importer of files, symlinks and streams into one publication. Not safe for concurrent use by threads.

    Args:
        publication: receives the blocks and the files.
        profile: determines CID version, leaves and nodes. A file of at least ``chunk_bytes`` is stored contiguously,
            so that it can be read without copying. The blocks of a smaller file are stored with other small blocks.
        chunker: decides where files are split.
        progress: called with the number of bytes just read; several times for a large file.
    """

    def __init__(
        self, publication: Publication, profile: Profile, chunker: Chunker, progress: Callable[[int], None]
    ) -> None:
        self._publication = publication
        self._profile = profile
        self._chunker = chunker
        self._progress = progress
        self._nodes = NodeBuilder(publication.put, profile)
        self._encoding = LeafEncoding.RAW if profile.raw_leaves else LeafEncoding.UNIXFS_FILE
        self._started_pipeline: LeafPipeline | None = None

    def close(self) -> None:
        """Stop the hashing threads."""
        if self._started_pipeline is not None:
            self._started_pipeline.close()

    def import_file(self, source: Source, metadata: Metadata) -> Subtree:
        """Import a regular file.

        Raises:
            PermissionError: the file cannot be read.
            SourceChangedError: the file changed after its ``lstat``, or while it was read.
            SettingsError: the chunks of the chunker do not cover the file.
        """
        size_bytes = source.status.st_size
        with open_source(source, self._progress) as reader:
            if size_bytes < self._profile.chunk_bytes or _may_be_one_wrapped_leaf(size_bytes, metadata):
                _logger.debug("%s: %d bytes, stored as small blocks", source, size_bytes)
                return self._import_small(reader.read_all(), metadata)
            _logger.debug("%s: %d bytes, stored as one contiguous file", source, size_bytes)
            with reader.for_chunker() as file:
                return self._import_large(reader.fill, chunk_lengths(self._chunker, file, size_bytes), metadata)

    def import_symlink(self, source: Source, metadata: Metadata) -> Subtree:
        """Import a symlink without following it.

        Raises:
            SourceChangedError: the path is no longer a symlink.
        """
        _logger.debug("%s: stored as a symlink", source)
        # The permissions of a symlink have no meaning, so Kubo records only its mtime.
        block = encode_symlink(read_symlink(source), mtime_ns=metadata.mtime_ns)
        return Subtree(self._nodes.put_node(block), 0, len(block))

    def import_stream(self, stream: BinaryIO) -> Subtree:
        """Import the rest of a stream as one file, with the same CID as a file of these bytes.

        The stream is read once. With a fixed chunk size, the bytes are hashed while they are written. With any other
        chunker, they are written first, and then read back for the chunker and the hash.

        Raises:
            SettingsError: the chunks of the chunker do not cover the stream.
        """
        reader = StreamReader(stream, self._progress)
        head = reader.peek(self._profile.chunk_bytes)
        if len(head) < self._profile.chunk_bytes:
            _logger.debug("stream: %d bytes, stored as small blocks", len(head))
            return self._import_small(head, NO_METADATA)
        if isinstance(self._chunker, FixedSizeChunker):
            _logger.debug("stream: stored as one contiguous file, split while it is read")
            return self._import_large(reader.fill, repeat(self._chunker.chunk_bytes), NO_METADATA)
        return self._import_spooled(reader)

    def _import_small(self, data: bytes, metadata: Metadata) -> Subtree:
        """Import a file that fits into memory, and store each of its blocks separately."""
        ends = accumulate(chunk_lengths(self._chunker, io.BytesIO(data), len(data)), initial=0)
        chunks = [data[start:end] for start, end in pairwise(ends)] or [b""]
        if len(chunks) == 1:
            return self._import_single_leaf(chunks[0], metadata)
        leaves = []
        for chunk in chunks:
            block = block_of_leaf(chunk, self._encoding)
            leaf = self._nodes.put_leaf(block, raw=self._encoding is LeafEncoding.RAW)
            leaves.append(Subtree(leaf.cid, len(chunk), len(block)))
        return self._nodes.build_file(leaves, mode=metadata.mode, mtime_ns=metadata.mtime_ns)

    def _import_single_leaf(self, data: bytes, metadata: Metadata) -> Subtree:
        """Import a file that is one leaf, which records the metadata."""
        if metadata.is_empty:
            block = block_of_leaf(data, self._encoding)
        else:
            fields = UnixFSData(NodeType.FILE, data or None, len(data), mode=metadata.mode, mtime_ns=metadata.mtime_ns)
            block = encode_node((), encode_data(fields))
        leaf = self._nodes.put_leaf(block, raw=self._encoding is LeafEncoding.RAW)
        return Subtree(leaf.cid, len(data), len(block))

    def _import_large(self, fill: Callable[[memoryview], int], lengths: Iterable[int], metadata: Metadata) -> Subtree:
        """Import a contiguous file. Each chunk is hashed while it is written."""
        with self._new_file() as writer:
            return self._finish(writer, self._pipeline.run(fill, lengths, writer.write), metadata)

    def _import_spooled(self, reader: StreamReader) -> Subtree:
        """Import a contiguous file that is written before it is split: its chunker needs its bytes or its size."""
        _logger.debug("stream: stored as one contiguous file, written before it is split")
        with self._new_file(read_back=True) as writer:
            size_bytes = _copy(reader.fill, writer.write)
            file = cast("BinaryIO", SpooledFile(writer, size_bytes))
            lengths = chunk_lengths(self._chunker, file, size_bytes)
            leaves = self._pipeline.run(SpooledFile(writer, size_bytes).readinto, lengths, _discard)
            return self._finish(writer, leaves, NO_METADATA)

    def _finish(self, writer: FileWriter, leaves: Iterator[Subtree], metadata: Metadata) -> Subtree:
        """Build the nodes above the leaves, and name the written file by its root."""
        subtrees = list(leaves)
        root = self._nodes.build_file(subtrees, mode=metadata.mode, mtime_ns=metadata.mtime_ns)
        writer.finish(root.cid, leaf_rows(subtrees, self._encoding))
        return root

    @contextmanager
    def _new_file(self, *, read_back: bool = False) -> Iterator[FileWriter]:
        """Yield a new file of the publication. It is discarded if the ``with`` block raises."""
        writer = self._publication.begin_file(read_back=read_back)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise

    @property
    def _pipeline(self) -> LeafPipeline:
        """The pipeline, whose threads are started on first use."""
        if self._started_pipeline is None:
            self._started_pipeline = LeafPipeline(self._encoding, self._profile.cid_version)
        return self._started_pipeline


def _may_be_one_wrapped_leaf(size_bytes: int, metadata: Metadata) -> bool:
    """Return whether the file may have a single leaf that must record metadata.

    The block of such a leaf cannot be encoded from the bytes of the file alone, so the file is not stored contiguously.
    """
    return not metadata.is_empty and size_bytes <= MAX_LEAF_BYTES


def _copy(fill: Callable[[memoryview], int], write: Callable[[memoryview], None]) -> int:
    """Copy until the source ends, and return the number of bytes."""
    buffer = memoryview(bytearray(MAX_LEAF_BYTES))
    size_bytes = 0
    while filled := fill(buffer):
        write(buffer[:filled])
        size_bytes += filled
    return size_bytes


def _discard(_: memoryview) -> None:
    """Ignore bytes that were read back, because they are already written."""
