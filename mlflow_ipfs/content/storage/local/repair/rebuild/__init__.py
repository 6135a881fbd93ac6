"""``doctor --rebuild``: a new index for a store whose ``store.db`` is lost or damaged.

``protocol.py`` has all the steps:

1. Open the copies of the old index (``index_copies.py``).
2. Scan the files (``scan.py``, with ``packs.py`` and ``objects.py``) into a new index (``new_index.py``).
3. Copy the names, and pin content that no name reaches (``names.py``).
4. Swap the indexes (``quarantine.py``).
"""

from __future__ import annotations

from mlflow_ipfs.content.storage.local.repair.rebuild.protocol import rebuild_index
from mlflow_ipfs.content.storage.local.repair.rebuild.report import IndexCopyUse, LeftFile, LeftName, RebuildReport
from mlflow_ipfs.content.storage.local.repair.rebuild.scan import measure_files

__all__ = ["IndexCopyUse", "LeftFile", "LeftName", "RebuildReport", "measure_files", "rebuild_index"]
