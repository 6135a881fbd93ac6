"""The local store: one directory, no daemon.

SQLite holds everything small and mutable; immutable files hold everything large. No two processes append to the same
file, so a crash cannot leave a torn write. To learn how the store works, read ``index/layout.py`` (the paths), then
``publishing/publication.py`` (how content is written) and ``reading/reader.py`` (how content is read).
"""

from __future__ import annotations

from mlflow_ipfs.content.storage.local.storage import LocalStorage, open_local_storage

__all__ = ["LocalStorage", "open_local_storage"]
