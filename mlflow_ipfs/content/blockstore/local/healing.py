"""Where a store gets undamaged bytes from when its own are damaged: another store, or later the next tier."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.cid import CID

_logger = logging.getLogger(__name__)


class Healing:
    """The source of one open store.

    Attributes:
        source: has the blocks; None while there is none.
        healed_blocks: how many it gave so far.
    """

    def __init__(self) -> None:
        self.source: BlockReader | None = None
        self.healed_blocks = 0

    def fetch(self, cid: CID) -> bytes | None:
        """A block, verified; None if there is no source, or if it has no undamaged one either."""
        if self.source is None:
            return None
        try:
            data = self.source.get(cid)
        except (
            MlflowIpfsError,
            OSError,
        ) as error:  # not there, damaged there too, or not reachable: ours is the damage to be named
            _logger.warning("the block %s could not be healed: %s", cid, error)
            return None
        if not cid.matches(data):
            _logger.warning("the block %s could not be healed: the source gave other bytes", cid)
            return None
        self.healed_blocks += 1
        _logger.warning("the block %s was damaged, and is healed from %s", cid, self.source)
        return data
