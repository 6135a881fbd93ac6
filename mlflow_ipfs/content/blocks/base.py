"""Block readers, and what all implementations share: the size limits and the description of a leaf."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.codecs.unixfs import LeafEncoding

MAX_BLOCK_BYTES: Final = 2 << 20  # the largest block that IPFS nodes accept (Bitswap's limit)
MAX_LEAF_BYTES: Final = 1 << 20  # the largest chunk that this package cuts; leaves room for wrapping


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a file: ``length`` bytes at ``offset``, the encoding of its block, and the CID of the block."""

    cid: CID
    offset: int
    length: int
    form: LeafEncoding


class BlockReader(ABC):
    """Source of verified blocks by CID.

    Blocks are keyed by multihash: CIDs that differ only in version or codec share a block. A reader distinguishes
    *absent* blocks (``NotFoundError``; ``has`` returns False) from *unreachable* ones (``RemoteError``, also from
    ``has``).
    """

    @abstractmethod
    def get(self, cid: CID) -> bytes:
        """Return a block, verified against its CID.

        Raises:
            NotFoundError: the reader does not have the block.
            IntegrityError: the bytes that the reader has do not hash to the CID.
            RemoteError: the block may exist, but its source could not be reached.
        """

    @abstractmethod
    def has(self, cid: CID) -> bool:
        """Return whether the reader has the block. Always true for identity CIDs.

        Raises:
            RemoteError: a source that may have the block could not be reached.
        """

    def get_many(self, cids: Sequence[CID]) -> Generator[bytes, None, None]:
        """Yield blocks in the order of ``cids``. Raises what ``get`` raises for the next block.

        An implementation may hold files open until the generator ends or is closed. A few MiB per call are enough for
        the full speed of bulk reading.
        """
        for cid in cids:
            yield self.get(cid)

    def find_absent(self, cids: Sequence[CID]) -> CID | None:
        """Return the first CID for which ``has`` returns False, or None if the reader has all of the blocks."""
        return next((cid for cid in cids if not self.has(cid)), None)

    def get_size(self, cid: CID) -> int:
        """Return the length of a block in bytes. Raises what ``get`` raises."""
        return len(self.get(cid))
