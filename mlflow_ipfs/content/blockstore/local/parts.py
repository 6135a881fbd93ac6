"""What the parts of one open store share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.local.database import Database
    from mlflow_ipfs.content.blockstore.local.disk import Disk
    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.blockstore.local.locking import FileLock
    from mlflow_ipfs.content.blockstore.local.sessions import Session


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
        store_id: the store's own id.
    """

    layout: Layout
    disk: Disk
    database: Database
    session: Session
    publish_lock: FileLock
    gc_lock: FileLock
    store_id: str
