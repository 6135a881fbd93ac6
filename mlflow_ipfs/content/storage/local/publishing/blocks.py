"""The single blocks of a local store, and how a damaged one is replaced."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication
from mlflow_ipfs.content.storage.local.reading.reader import LocalReader
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.errors import IntegrityError


class LocalBlocks(LocalReader):
    """The blocks of a local store, damaged ones replaced from its healing source."""

    def _replace(self, cid: CID, damage: IntegrityError) -> bytes:
        """Heal a damaged block from the store's source, if it has one and that has the block."""
        data = self._context.healing.fetch(cid)
        if data is None:
            raise damage
        # A damaged place counts as absent, so the block gets a new one. Without room for it, it still can be read.
        with suppress(MlflowIpfsError), LocalPublication(self._context) as publication:
            publication.put(cid, data)
            publication.commit()
        return data
