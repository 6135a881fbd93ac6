"""A reader for callers that must not wait, such as an event loop: it stops after a number of bytes of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.cid import RAW

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


class ReadLimitError(Exception):
    """The next node would exceed the reader's limit. For the caller that set the limit, never for a user."""


class LimitedReader(BlockReader):
    """Reads at most ``max_bytes`` of nodes in total. Raw leaves do not count: they are not decoded.

    Decoding costs about 0.15 s for each MiB of links, so a path through hostile directories can take seconds.
    """

    def __init__(self, inner: BlockReader, max_bytes: int) -> None:
        self._inner = inner
        self._left_bytes = max_bytes

    def get(self, cid: CID) -> bytes:
        """Return a block. Raises ``ReadLimitError``, without reading, if the block exceeds what is left of the limit."""
        if cid.codec != RAW:
            self._left_bytes -= self._inner.get_size(cid)
            if self._left_bytes < 0:
                raise ReadLimitError(cid)
        return self._inner.get(cid)

    def has(self, cid: CID) -> bool:
        """See ``BlockReader``."""
        return self._inner.has(cid)
