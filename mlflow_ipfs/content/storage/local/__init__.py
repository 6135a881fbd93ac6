"""The local store: one directory, no daemon.

SQLite holds everything small and mutable, immutable files hold everything big. There is no file
that two processes append to, so there is nothing that can tear. Start reading at ``layout.py``
(what lies where), then ``publication.py`` (how content gets in) and ``blocks.py`` (how it is read).
"""

from __future__ import annotations

from mlflow_ipfs.content.storage.local.storage import LocalStorage, open_local_storage

__all__ = ["LocalStorage", "open_local_storage"]
