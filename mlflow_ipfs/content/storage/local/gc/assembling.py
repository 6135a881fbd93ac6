"""Assembly of contiguous objects from blocks: for callers that need a path, and to replace a damaged object.

A large file is stored in pieces if most of it was in the store already (see ``publishing/object_writer.py``). So is a
file that arrived as blocks, for example in a CAR.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import DAG_PB
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.storage.local.gc.eviction import CachePublication
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication
from mlflow_ipfs.content.storage.local.reading.objects import iterate_leaves
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from mlflow_ipfs.content.blocks.base import BlockReader, Leaf
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_logger = logging.getLogger(__name__)
_FREE_LEAVES: Final = 1 << 20  # leaves that any object may have; all of them are in memory
_MEAN_LEAF_BYTES: Final = 4096  # one further leaf is allowed per this many bytes of the file
_SPARE_BYTES: Final = 64 << 20  # left free on the disk by a copy in the cache, which is optional


class Assembler:
    """An assembler of objects in one store.

    Args:
        context: the store.
        reader: reads the blocks, each verified.
    """

    def __init__(self, context: StoreContext, reader: BlockReader) -> None:
        self._context = context
        self._reader = reader

    def is_worthwhile(self, root: CID) -> bool:
        """Return whether a copy in the cache is worthwhile: the file is large, and the cache has room for it."""
        if root.codec != DAG_PB:
            return False
        node = read_unixfs(self._reader, root)
        if not node.data.is_file or not node.links or node.size_bytes < object_writer.DEDUPE_BYTES:
            return False
        free_bytes = self._context.disk.free_bytes(self._context.layout.directory)
        limit_bytes = min(self._context.cache_bytes, free_bytes - _SPARE_BYTES)
        if node.size_bytes > limit_bytes:
            message = "%s: not assembled in the cache: it has %d bytes, and there is room for %d"
            _logger.debug(message, root, node.size_bytes, max(limit_bytes, 0))
        return node.size_bytes <= limit_bytes

    def assemble(self, root: CID, *, in_cache: bool) -> None:
        """Assemble the object of a file from its blocks.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged.
            InvalidDataError: the file cannot be stored as an object.
            StoreFullError, StoreBusyError: the object was not stored.
        """
        size_bytes = read_unixfs(self._reader, root).size_bytes
        kind = CachePublication if in_cache else LocalPublication
        with kind(self._context) as publication:
            writer = publication.begin_file()
            leaves: list[Leaf] = []
            for leaf in iterate_leaves(self._context.database, self._reader, root, size_bytes):
                piece = self._piece_of(leaf)
                if len(piece) != leaf.length:  # else a few small blocks could fill the disk first
                    msg = f"the leaf {leaf.cid} of the file {root} has {len(piece)} bytes, but its node says {leaf.length}"
                    raise InvalidDataError(msg)
                if len(leaves) >= _FREE_LEAVES + size_bytes // _MEAN_LEAF_BYTES:
                    msg = f"the file {root} has more than {len(leaves)} leaves, which are too small for an object"
                    raise InvalidDataError(msg)
                writer.write(piece)
                leaves.append(leaf)
            writer.finish(root, leaves)
            publication.commit()
        purpose = "in the cache" if in_cache else "to replace its damaged file"
        _logger.debug("%s: assembled %s from %d leaves, %d bytes, each hashed", root, purpose, len(leaves), size_bytes)

    def _piece_of(self, leaf: Leaf) -> bytes:
        """Return the bytes of the file that a leaf holds."""
        if leaf.form is LeafEncoding.RAW:
            return self._reader.get(leaf.cid)
        return read_unixfs(self._reader, leaf.cid).data.data or b""
