"""The small blocks of one publication: looked up in batches, then stored inline or in packs."""

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

INLINE_BYTES: Final = 64 << 10  # a publication with more bytes of new small blocks than this writes a pack
_LOOKUP_BYTES: Final = 256 << 10  # collected before they are looked up in the index


class SmallBlocks:
    """A collector of blocks. It drops those that the store already has, a few hundred at a time.

    Args:
        database: the index of the store.
        disk: writes the packs.
        new_draft: returns a path for a new pack.
        on_pack: called with each complete pack.
        class_: ``index_rows.CACHE`` for blocks that may be evicted at any time; they are never stored inline.
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
        """Add a block. It must differ from all blocks that were added before."""
        self._unchecked[cid.multihash] = cid, data
        self._unchecked_bytes += len(data)
        if self._unchecked_bytes > _LOOKUP_BYTES:
            self._drop_known()

    def finish(self) -> list[NewBlock]:
        """Complete the last pack. Return the blocks to store inline: all new ones if no pack was written, else none."""
        self._drop_known()
        if self._has_packs:
            self._write_to_packs()
            self._hand_over_pack()
            return []
        inline = [NewBlock(cid.multihash, data, 0, len(data), LeafEncoding.RAW) for cid, data in self._new]
        self._new.clear()
        return inline

    def discard(self) -> None:
        """Delete the pack that is being written."""
        if self._pack is not None:
            self._pack.discard()
            self._pack = None

    def _drop_known(self) -> None:
        """Drop collected blocks that the store has. Write the others to packs if they are too large to be inline."""
        with self._database.read() as connection:
            known = known_among(connection, self._unchecked, self._class)
        new = [block for multihash, block in self._unchecked.items() if multihash not in known]
        self._unchecked.clear()
        self._unchecked_bytes = 0
        self._new += new
        self._new_bytes += sum(len(data) for _, data in new)
        if self._new and (self._has_packs or self._new_bytes > self._inline_bytes):
            self._write_to_packs()

    def _write_to_packs(self) -> None:
        """Append the new blocks to packs. Hand over each full pack."""
        for cid, data in self._new:
            if self._pack is None:
                self._pack = PackWriter(self._disk, self._new_draft())
                self._has_packs = True
            self._pack.append(cid, data)
            if self._pack.is_sealed:
                self._hand_over_pack()
        self._new.clear()

    def _hand_over_pack(self) -> None:
        """Pass the current pack to ``on_pack``."""
        if self._pack is not None:
            self._on_pack(self._pack)  # if this fails, `discard` still finds the pack
            self._pack = None
