"""Objects shared by the components of one open store."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

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

HEALING_ADVICE: Final = "Add the content again to heal it"

_logger = logging.getLogger(__name__)


class Healing:
    """Source of undamaged blocks for one open store.

    Attributes:
        source: a reader that has the blocks; None if healing is off.
        healed_blocks: how many blocks were healed from the source so far.
    """

    def __init__(self) -> None:
        self.source: BlockReader | None = None
        self.healed_blocks = 0

    def fetch(self, cid: CID) -> bytes | None:
        """Return a verified block from the source; None without a source, or if the source cannot provide the block."""
        if self.source is None:
            return None
        try:
            data = self.source.get(cid)
        except (MlflowIpfsError, OSError) as error:  # not raised: the caller reports the damage in this store
            _logger.warning("the block %s could not be healed: %s", cid, error)
            return None
        if not cid.matches(data):
            _logger.warning("the block %s could not be healed: the source returned other bytes", cid)
            return None
        self.healed_blocks += 1
        _logger.warning("the block %s was damaged and is healed from %s", cid, self.source)
        return data


@dataclass(frozen=True, slots=True)
class StoreContext:
    """One open store.

    Attributes:
        layout: the paths of the store.
        disk: carries out every operation on the disk.
        database: the index.
        session: the drafts and views of this process.
        publish_lock: held shared by publications, and exclusively by a rebuild of the index.
        gc_lock: held by the running gc.
        cache_lock: held by the process that assembles a file for the cache.
        store_id: the id of the store.
        cache_bytes: the size that the cache may have.
        leases: leases of the cached files whose paths this process returned.
        healing: the source of undamaged blocks.
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
        # At most half of the cache, so that files in the other half can be evicted.
        object.__setattr__(self, "leases", Leases(self.cache_bytes // 2))
