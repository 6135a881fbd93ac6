"""Publication into the cache, which is held to its size by eviction after the commit."""

from __future__ import annotations

from mlflow_ipfs.content.blockstore.interface import Changes
from mlflow_ipfs.content.blockstore.local import index
from mlflow_ipfs.content.blockstore.local.cache.eviction import evict
from mlflow_ipfs.content.blockstore.local.publication import LocalPublication


class CachePublication(LocalPublication):
    """One publish into the cache of a local store: its blocks stay only as long as the cache has room for them."""

    _class = index.CACHE

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then evict what exceeds the cache's size. Return how many bytes were new.

        Raises:
            ValueError: the changes have names. What is in the cache can have no name.
        """
        if changes not in (None, Changes()):
            msg = "what is put into the cache can have no name"
            raise ValueError(msg)
        new_bytes = super().commit()
        evict(self._parts, self._parts.cache_bytes, spare={file.place_id for file in self._files})
        return new_bytes
