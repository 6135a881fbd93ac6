"""Prefetching of small blocks during a DAG walk."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.cid import CID

SMALL_BYTES: Final = 64 << 10
MAX_BLOCKS: Final = 64
_MAX_BYTES: Final = 4 << 20  # needed because the sizes that links state may be false


class PrefetchingReader(BlockReader):
    """``BlockReader`` that can prefetch the blocks that its caller needs next. Not for sharing between threads.

    A prefetched block is kept until ``get`` returns it.

    Args:
        reader: the source of the blocks.
    """

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self._blocks: dict[CID, bytes] = {}
        self._kept_bytes = 0

    def get(self, cid: CID) -> bytes:
        """Return a block, from the prefetched blocks if possible."""
        block = self._blocks.pop(cid, None)
        if block is None:
            return self._reader.get(cid)
        self._kept_bytes -= len(block)
        return block

    def has(self, cid: CID) -> bool:
        """Return whether the block is prefetched or the reader has it."""
        return cid in self._blocks or self._reader.has(cid)

    def is_ahead(self, cid: CID) -> bool:
        """Return whether the block is prefetched."""
        return cid in self._blocks

    def read_ahead(self, cids: Sequence[CID]) -> None:
        """Prefetch the first of these blocks, up to the limits. Ignores errors: ``get`` raises them later."""
        wanted = [cid for cid in dict.fromkeys(cids[:MAX_BLOCKS]) if cid not in self._blocks]
        with closing(self._reader.get_many(wanted)) as blocks, suppress(MlflowIpfsError, OSError):
            for cid in wanted:
                if self._kept_bytes > _MAX_BYTES:
                    return
                self._blocks[cid] = next(blocks)
                self._kept_bytes += len(self._blocks[cid])
