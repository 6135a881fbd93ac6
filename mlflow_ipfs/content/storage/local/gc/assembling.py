"""Contiguous objects out of blocks that lie apart: for who needs a path, and instead of a damaged object.

Large files lie apart when most of them was in the store already (``object_writer.py``), or when
they came as blocks, in a CAR for example.
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
_FREE_LEAVES: Final = 1 << 20  # of one object, all of which are in memory
_MEAN_LEAF_BYTES: Final = 4096  # of further leaves, on average
_SPARE_BYTES: Final = 64 << 20  # left free on the disk when a file is made that nobody has to have


class Assembler:
    """Makes objects of one store.

    Args:
        context: the store.
        reader: gives the blocks, each verified.
    """

    def __init__(self, context: StoreContext, reader: BlockReader) -> None:
        self._context = context
        self._reader = reader

    def is_worthwhile(self, root: CID) -> bool:
        """Tell whether a contiguous copy in the cache would pay: the file is large, and there is room for it."""
        if root.codec != DAG_PB:
            return False
        node = read_unixfs(self._reader, root)
        if not node.data.is_file or not node.links or node.size_bytes < object_writer.DEDUPE_BYTES:
            return False
        free_bytes = self._context.disk.free_bytes(self._context.layout.directory)
        limit_bytes = min(self._context.cache_bytes, free_bytes - _SPARE_BYTES)
        if node.size_bytes > limit_bytes:
            what = "%s: not assembled in the cache: it has %d bytes, and there is room for %d"
            _logger.debug(what, root, node.size_bytes, max(limit_bytes, 0))
        return node.size_bytes <= limit_bytes

    def assemble(self, root: CID, *, in_cache: bool) -> None:
        """Make the object of a file from its blocks.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged.
            InvalidDataError: the file is not of the kind that an object can be.
            StoreFullError, StoreBusyError: nothing was made.
        """
        size_bytes = read_unixfs(self._reader, root).size_bytes
        kind = CachePublication if in_cache else LocalPublication
        with kind(self._context) as publication:
            writer = publication.begin_file()
            leaves: list[Leaf] = []
            for leaf in iterate_leaves(self._context.database, self._reader, root, size_bytes):
                piece = self._piece_of(leaf)
                if len(piece) != leaf.length:  # else a few small blocks could fill the disk before that is seen
                    msg = f"the leaf {leaf.cid} of the file {root} has {len(piece)} bytes, and its node says {leaf.length}"
                    raise InvalidDataError(msg)
                if len(leaves) >= _FREE_LEAVES + size_bytes // _MEAN_LEAF_BYTES:
                    msg = f"the file {root} has over {len(leaves)} leaves, too many small ones for an object"
                    raise InvalidDataError(msg)
                writer.write(piece)
                leaves.append(leaf)
            writer.finish(root, leaves)
            publication.commit()
        where = "in the cache" if in_cache else "in the place of its damaged file"
        _logger.debug("%s: assembled %s from %d leaves, %d bytes, each hashed", root, where, len(leaves), size_bytes)

    def _piece_of(self, leaf: Leaf) -> bytes:
        if leaf.form is LeafEncoding.RAW:
            return self._reader.get(leaf.cid)
        return read_unixfs(self._reader, leaf.cid).data.data or b""
