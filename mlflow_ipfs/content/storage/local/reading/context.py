"""What the parts of one open store share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_ipfs.content.storage.local.files.leases import Leases
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.files.sessions import Session
    from mlflow_ipfs.content.storage.local.index.database import Database
    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk
    from mlflow_ipfs.content.system.locking import FileLock

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


@dataclass(frozen=True, slots=True)
class StoreContext:
    """One open store.

    Attributes:
        layout: where things lie.
        disk: every step on the disk goes through it.
        database: the index.
        session: this process's drafts and views.
        publish_lock: shared by publications, held exclusively by a rebuild of the index.
        gc_lock: held by the one gc that runs.
        cache_lock: held by the one process that puts a file together for the cache.
        store_id: the store's own id.
        cache_bytes: how much the cache may take.
        leases: of the cached files whose paths this process gave out.
        healing: where undamaged bytes come from.
    """

    layout: Layout
    disk: Disk
    database: Database
    session: Session
    publish_lock: FileLock
    gc_lock: FileLock
    cache_lock: FileLock
    store_id: str
    cache_bytes: int
    healing: Healing = field(default_factory=Healing)
    leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        # Half of the cache at most: of the other half something can be evicted.
        object.__setattr__(self, "leases", Leases(self.cache_bytes // 2))
