"""The single blocks of a local store, and how a damaged one is replaced."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.local import index
from mlflow_ipfs.content.blockstore.local.publication import LocalPublication
from mlflow_ipfs.content.blockstore.local.reading import LocalReader
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.errors import IntegrityError

_PAGE: Final = 10_000


class LocalBlocks(LocalReader):
    """The blocks of a local store. See ``Blockstore``."""

    def put(self, cid: CID, data: bytes) -> None:
        """Keep a block. Durable when the call returns."""
        self.put_many([(cid, data)])

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Keep many blocks, all or none."""
        with LocalPublication(self._parts) as publication:
            for cid, data in blocks:
                cid.verify(data)
                publication.put(cid, data)
            publication.commit()

    def delete(self, cid: CID) -> bool:
        """Forget a block. Waits for publications, which may rely on it."""
        self._parts.database.check_writable()
        with self._parts.publish_lock.exclusive(), self._parts.database.write() as connection:
            # An object without its root's block is no longer the file of that root.
            connection.execute("UPDATE place SET root = NULL WHERE root = ?", (cid.multihash,))
            gone = connection.execute("DELETE FROM block WHERE multihash = ?", (cid.multihash,))
        return bool(gone.rowcount)

    def multihashes(self) -> Iterator[bytes]:
        """The multihash of every block."""
        last = 0
        while True:
            with self._parts.database.read() as connection:
                rows = index.page_of_multihashes(connection, last, _PAGE)
            if not rows:
                return
            last = rows[-1][0]
            for _, multihash in rows:
                yield multihash

    def _replace(self, cid: CID, damage: IntegrityError) -> bytes:
        """Heal a damaged block from the store's source, if it has one and that has the block."""
        data = self._parts.healing.fetch(cid)
        if data is None:
            raise damage
        # A damaged place counts as absent, so the block gets a new one. Without room for it, it still can be read.
        with suppress(MlflowIpfsError):
            self.put(cid, data)
        return data
