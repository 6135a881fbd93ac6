"""The small blocks of one publication: looked up in batches, then kept inline or in packs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.packs import PackWriter
from mlflow_ipfs.content.storage.local.index.index_rows import OWNED, NewBlock, known_among

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.index.database import Database
    from mlflow_ipfs.content.system.disk import Disk

INLINE_BYTES: Final = 64 << 10  # a publication with more than this in new small blocks writes a pack
_LOOKUP_BYTES: Final = 256 << 10  # how much is gathered before the index is asked what is new


class SmallBlocks:
    """Gathers blocks; those that the store has already are dropped, a few hundred at a time.

    Args:
        database: says what the store has.
        disk: takes the packs.
        new_draft: gives paths for them.
        on_pack: takes each pack that is complete.
        class_: ``index.CACHE`` for blocks that may go at any time; they are never kept inline.
    """

    def __init__(
        self,
        database: Database,
        disk: Disk,
        new_draft: Callable[[], Path],
        on_pack: Callable[[PackWriter], None],
        class_: str,
    ) -> None:
        self._class = class_
        self._inline_bytes = INLINE_BYTES if class_ == OWNED else -1
        self._database = database
        self._disk = disk
        self._new_draft = new_draft
        self._on_pack = on_pack
        self._unchecked: dict[bytes, tuple[CID, bytes]] = {}
        self._unchecked_bytes = 0
        self._new: list[tuple[CID, bytes]] = []
        self._new_bytes = 0
        self._pack: PackWriter | None = None
        self._has_packs = False

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block that is not among those added before."""
        self._unchecked[cid.multihash] = cid, data
        self._unchecked_bytes += len(data)
        if self._unchecked_bytes > _LOOKUP_BYTES:
            self._sort_out()

    def finish(self) -> list[NewBlock]:
        """Complete the last pack. Returns the blocks to keep inline, if there are so few."""
        self._sort_out()
        if self._has_packs:
            self._spill()
            self._seal()
            return []
        inline = [NewBlock(cid.multihash, data, 0, len(data), LeafEncoding.RAW) for cid, data in self._new]
        self._new.clear()
        return inline

    def discard(self) -> None:
        """Forget the pack that is being written."""
        if self._pack is not None:
            self._pack.discard()
            self._pack = None

    def _sort_out(self) -> None:
        """Ask the index which of the gathered blocks are new; start a pack if they are too many."""
        with self._database.read() as connection:
            known = known_among(connection, self._unchecked, self._class)
        fresh = [block for multihash, block in self._unchecked.items() if multihash not in known]
        self._unchecked.clear()
        self._unchecked_bytes = 0
        self._new += fresh
        self._new_bytes += sum(len(data) for _, data in fresh)
        if self._new and (self._has_packs or self._new_bytes > self._inline_bytes):
            self._spill()

    def _spill(self) -> None:
        for cid, data in self._new:
            if self._pack is None:
                self._pack = PackWriter(self._disk, self._new_draft())
                self._has_packs = True
            self._pack.append(cid, data)
            if self._pack.is_sealed:
                self._seal()
        self._new.clear()

    def _seal(self) -> None:
        if self._pack is not None:
            self._on_pack(self._pack)  # if that fails, the pack is still there to be discarded
            self._pack = None
