"""Read-through: a remote reader behind the local one, and a local cache of the fetched blocks."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.system.forking import forget_in_child
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from mlflow_ipfs.content.cid import CID

_logger = logging.getLogger(__name__)

# Publishing 256 blocks at once costs about a fiftieth per block of publishing them one by one. The blocks of a batch
# are in memory until they are published, so a killed process must fetch at most one batch again.
BATCH_BLOCKS: Final = 256
BATCH_BYTES: Final = 64 << 20


class CacheWriter(Protocol):
    """Part of the interface of a publication that the cache needs."""

    def put(self, cid: CID, data: bytes) -> None:
        """Add a verified block."""

    def commit(self) -> int:
        """Store the blocks. Return the number of new bytes."""


class ReadThroughReader(BlockReader):
    """Reader of local blocks that falls back to a remote reader, and stores fetched blocks in the local cache.

    Only the local storage determines which content is *kept*: pins, gc, backups and checks for completeness never use
    this reader. It may be shared between threads. Its owner must call ``flush`` before closing the local storage.

    Args:
        local: reader of the local storage.
        remote: reader for blocks that are absent or damaged locally; it must verify every block that it returns.
        open_cache: opens a publication into the cache of the local storage.
    """

    def __init__(
        self, local: BlockReader, remote: BlockReader, open_cache: Callable[[], AbstractContextManager[CacheWriter]]
    ) -> None:
        self._local = local
        self._remote = remote
        self._open_cache = open_cache
        self._fetched: dict[bytes, tuple[CID, bytes]] = {}  # by multihash; kept until their publication has committed
        self._fetched_bytes = 0
        self._guard = threading.Lock()
        self._publishing = threading.Lock()
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Replace the locks: a thread of the parent process may have held them."""
        self._guard = threading.Lock()
        self._publishing = threading.Lock()

    def get(self, cid: CID) -> bytes:
        """Return a block from the local storage, else from the remote reader."""
        try:
            return self._local.get(cid)
        except (NotFoundError, IntegrityError) as error:
            return self._get_fetched(cid, error)

    def has(self, cid: CID) -> bool:
        """Return whether the block is in the local storage or at the remote reader."""
        return self._local.has(cid) or cid.multihash in self._fetched or self._remote.has(cid)

    def get_many(self, cids: Sequence[CID]) -> Generator[bytes, None, None]:
        """Yield blocks, read in bulk from the local storage as long as it has them."""
        position = 0
        while position < len(cids):
            with closing(self._local.get_many(cids[position:])) as blocks:
                try:
                    for data in blocks:
                        position += 1
                        yield data
                except (NotFoundError, IntegrityError) as error:
                    data = self._get_fetched(cids[position], error)
                else:
                    return
            position += 1
            yield data

    def get_size(self, cid: CID) -> int:
        """Return the length of a block in bytes."""
        try:
            return self._local.get_size(cid)
        except (NotFoundError, IntegrityError):
            return len(self.get(cid))

    def flush(self) -> None:
        """Store the fetched blocks in the local cache. Logs a failure; the blocks are then fetched again when needed."""
        with self._publishing:
            with self._guard:
                batch = list(self._fetched.values())
            if not batch:
                return
            try:
                with self._open_cache() as publication:
                    for cid, data in batch:
                        publication.put(cid, data)
                    publication.commit()
            except MlflowIpfsError as error:
                _logger.warning(
                    "%d fetched blocks were not stored in the cache, and are fetched again when needed: %s",
                    len(batch),
                    error,
                )
            with self._guard:
                for cid, data in batch:
                    del self._fetched[cid.multihash]
                    self._fetched_bytes -= len(data)

    def _get_fetched(self, cid: CID, local_error: NotFoundError | IntegrityError) -> bytes:
        """Return a block that is absent or damaged in the local storage."""
        found = self._fetched.get(cid.multihash)
        if found is not None:
            return found[1]
        try:
            data = self._remote.get(cid)
        except NotFoundError as error:
            if isinstance(local_error, IntegrityError):
                raise local_error from error
            msg = f"{local_error}, nor at a remote source ({error})"
            raise NotFoundError(msg) from error
        _logger.debug("fetched the block %s: %s", cid, local_error)
        if isinstance(local_error, NotFoundError):  # a cached copy does not replace a damaged block; healing does
            self._add_to_batch(cid, data)
        return data

    def _add_to_batch(self, cid: CID, data: bytes) -> None:
        with self._guard:
            if cid.multihash in self._fetched:
                return
            self._fetched[cid.multihash] = (cid, data)
            self._fetched_bytes += len(data)
            is_full = len(self._fetched) >= BATCH_BLOCKS or self._fetched_bytes >= BATCH_BYTES
        if is_full:
            self.flush()
