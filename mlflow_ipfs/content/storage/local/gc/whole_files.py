"""Paths of whole files: found and verified, assembled in the cache on request, assembled again when damaged."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.gc.assembling import Assembler
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.reading.objects import ObjectChecker
from mlflow_ipfs.content.system.locking import LONGEST_PAUSE_SECONDS, KeyedLocks
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_logger = logging.getLogger(__name__)
_TOUCH_SECONDS: Final = 60  # the age at which the time of the last use is updated


class WholeFiles:
    """The objects of one store, for its users.

    Args:
        context: the store.
        reader: reads its blocks.
        verify_always: hash an object each time, even if its stamp is unchanged.
    """

    def __init__(self, context: StoreContext, reader: BlockReader, *, verify_always: bool) -> None:
        self._context = context
        self._checker = ObjectChecker(context, reader, verify_always=verify_always)
        self._assembler = Assembler(context, reader)
        self._locks = KeyedLocks()

    def find(self, cid: CID) -> Path | None:
        """Return the path of the object of a file, undamaged, or None. A cached object is leased.

        Raises:
            IntegrityError: the object is damaged; it was moved to quarantine.
        """
        deadline = time.monotonic() + self._context.database.timeout_seconds
        while (found := self._checker.find(cid)) is not None:  # hashing a large file may take longer than the limit
            path, place = found
            if place.cache_used is None:
                return path
            # Look it up again after the lease: a concurrent eviction either has committed, or sees the lease.
            if self._context.leases.take(path) and self._checker.find(cid) == found:
                self._touch(place)
                return path
            if time.monotonic() > deadline:
                break
            _logger.debug("%s: %s is being evicted from the cache, so it is looked up again", cid, path)
            time.sleep(LONGEST_PAUSE_SECONDS)
        return None

    def find_ready(self, cid: CID) -> Path | None:
        """Return what ``Storage.ready_file`` returns. For event loops: reads no file, takes no store lock."""
        found = self._checker.find_unchanged(cid)
        if found is None:
            return None
        path, place = found
        if place.cache_used is None:
            return path
        # As in `find`: a concurrent eviction either has committed, or sees the lease.
        if not self._context.leases.take(path) or self._checker.find_unchanged(cid) != found:
            return None
        if self._is_touch_due(place):
            threading.Thread(target=self._touch, args=[place], name="mlflow-ipfs-touch").start()  # waits for a lock
        return path

    def find_or_heal(self, cid: CID) -> Path | None:
        """Return what ``Storage.file_path`` returns: a damaged object is assembled again if possible."""
        try:
            return self.find(cid)
        except IntegrityError as damage:
            if not self.heal(cid):
                raise
            _logger.warning("%s (it was assembled again from undamaged blocks)", damage)
            return self.find(cid)

    def heal(self, cid: CID) -> bool:
        """Assemble a damaged object again. Return whether that succeeded."""
        if self._context.database.read_only:
            return False
        _logger.debug("%s: the file is damaged, so it is assembled again from blocks", cid)
        try:
            self._assembler.assemble(cid, in_cache=False)
        except MlflowIpfsError as error:
            _logger.warning("the file of %s is damaged and could not be assembled again: %s", cid, error)
            return False
        return True

    def ensure(self, cid: CID) -> Path | None:
        """Return what ``Storage.ensure_file`` returns."""
        # One thread hashes or assembles the file; other threads that ask for it wait and then find it.
        with self._locks.of(cid.multihash):
            return self._ensure(cid)

    def _ensure(self, cid: CID) -> Path | None:
        path = self.find_or_heal(cid)
        if path is not None or self._context.database.read_only:
            return path
        try:
            return self._make(cid) if self._assembler.is_worthwhile(cid) else None
        except MlflowIpfsError as error:  # a caller without a path reads the blocks instead
            _logger.debug("%s: no file was assembled in the cache: %s", cid, error)
            return None

    def _make(self, cid: CID) -> Path | None:
        """Assemble a file in the cache. Return its path, or None if it was evicted already."""
        with self._context.cache_lock.exclusive():
            path = self.find(cid)  # another process may have made it while this one waited
            if path is None:
                self._assembler.assemble(cid, in_cache=True)
                path = self.find(cid)
        return path

    def _touch(self, place: index_rows.PlaceRow) -> None:
        """Record that a cached file is in use. A failure is ignored: the file is then only evicted sooner."""
        if self._is_touch_due(place):
            # A closed database raises ValueError.
            with suppress(MlflowIpfsError, ValueError), self._context.database.write() as connection:
                index_rows.touch_cached(connection, place.id)

    def _is_touch_due(self, place: index_rows.PlaceRow) -> bool:
        is_old = place.cache_used is not None and time.time() - place.cache_used > _TOUCH_SECONDS
        return is_old and not self._context.database.read_only
