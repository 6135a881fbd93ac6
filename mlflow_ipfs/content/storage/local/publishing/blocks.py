"""Blocks of a local store; damaged ones are replaced from a healing source."""

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
    """The blocks of a local store. A damaged block is replaced from the store's healing source."""

    def _replace(self, cid: CID, damage: IntegrityError) -> bytes:
        """Return a damaged block from the healing source, and store it again. Raise the damage if this fails."""
        data = self._context.healing.fetch(cid)
        if data is None:
            raise damage
        # A block in a damaged place counts as absent, so it is written to a new place.
        # If the disk is full, the block is still returned.
        with suppress(MlflowIpfsError), LocalPublication(self._context) as publication:
            publication.put(cid, data)
            publication.commit()
        return data
