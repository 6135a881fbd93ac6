"""Reading small blocks some at once, for who walks a DAG and knows what comes next."""

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
_MAX_BYTES: Final = 4 << 20  # what is said of sizes may be a lie


class PrefetchingReader(BlockReader):
    """A ``BlockReader`` that can be told which blocks are asked for next. For one thread.

    A block that was read ahead is kept until it is asked for.

    Args:
        reader: where the blocks are.
    """

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self._blocks: dict[CID, bytes] = {}
        self._kept_bytes = 0

    def get(self, cid: CID) -> bytes:
        """The block, from what was read ahead if it is there."""
        block = self._blocks.pop(cid, None)
        if block is None:
            return self._reader.get(cid)
        self._kept_bytes -= len(block)
        return block

    def has(self, cid: CID) -> bool:
        """Tell whether the block is here."""
        return cid in self._blocks or self._reader.has(cid)

    def is_ahead(self, cid: CID) -> bool:
        """Whether the block was read already."""
        return cid in self._blocks

    def read_ahead(self, cids: Sequence[CID]) -> None:
        """Read some of these at once, the first ones first. An error is left to ``get``."""
        some = [cid for cid in dict.fromkeys(cids[:MAX_BLOCKS]) if cid not in self._blocks]
        with closing(self._reader.get_many(some)) as blocks, suppress(MlflowIpfsError, OSError):
            for cid in some:
                if self._kept_bytes > _MAX_BYTES:
                    return
                self._blocks[cid] = next(blocks)
                self._kept_bytes += len(self._blocks[cid])
