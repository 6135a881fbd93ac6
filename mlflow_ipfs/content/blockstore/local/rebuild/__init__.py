"""``doctor --rebuild``: a new index for a store whose ``store.db`` is lost or damaged.

Files are looked through: ``packs.py`` and ``objects.py`` hash every block and give it a row in a new
index (``draft.py``). What stood in the index alone, names and inline blocks, comes from what is left of
it and from its copies (``old_index.py``, ``names.py``). What no name reaches is pinned (``roots.py``).
``protocol.py`` shuts everybody out, puts the new index in place and keeps the old one.
"""

from __future__ import annotations

from mlflow_ipfs.content.blockstore.local.rebuild.looking import measure_files
from mlflow_ipfs.content.blockstore.local.rebuild.protocol import rebuild_index
from mlflow_ipfs.content.blockstore.local.rebuild.report import LeftFile, LeftName, OldIndexUse, RebuildReport

__all__ = ["LeftFile", "LeftName", "OldIndexUse", "RebuildReport", "measure_files", "rebuild_index"]
