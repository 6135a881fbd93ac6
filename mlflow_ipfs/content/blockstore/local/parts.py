"""What the parts of one open store share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blockstore.local.cache.leases import Leases
from mlflow_ipfs.content.blockstore.local.healing import Healing

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.local.database import Database
    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.blockstore.local.sessions import Session
    from mlflow_ipfs.content.system.disk import Disk
    from mlflow_ipfs.content.system.locking import FileLock


@dataclass(frozen=True, slots=True)
class Parts:
    """One open store.

    Attributes:
        layout: where things lie.
        disk: every step on the disk goes through it.
        database: the index.
        session: this process's drafts and views.
        publish_lock: shared by whoever relies on blocks that are not referenced yet, held alone to delete single blocks.
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
