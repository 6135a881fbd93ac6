"""Leases of cached files: a leased file is not evicted, because a process may still use its path.

A lease is a shared ``flock`` on the file itself, so it ends with the process. The store cannot know when a caller stops
using a path. A process therefore keeps the leases of the paths that it returned last, up to a total size. Without this
limit a process that runs for months would lease every file that was ever in the cache.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.system.forking import forget_in_child, not_forking
from mlflow_ipfs.content.system.locking import try_flock

if TYPE_CHECKING:
    from pathlib import Path

MAX_LEASES: Final = 128  # each is an open file


class Leases:
    """The leases of one open store in one process.

    Args:
        limit_bytes: the total size that leased files may have. The latest lease is kept even if it exceeds the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._leased_bytes = 0
        self._held: OrderedDict[Path, tuple[int, int]] = OrderedDict()  # descriptor and size of each file
        self._guard = threading.Lock()
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors: while they are open, a lease would outlive its release by the parent."""
        self._guard = threading.Lock()
        self.release_all()

    def take(self, path: Path) -> bool:
        """Lease a file, or renew its lease. Return False if the file is evicted or is being evicted."""
        with self._guard, not_forking():
            if path in self._held:
                self._held.move_to_end(path)
                return True
            descriptor = _try_to_lock(path, shared=True)
            if descriptor is None:
                return False
            size_bytes = os.fstat(descriptor).st_size
            self._held[path] = descriptor, size_bytes
            self._leased_bytes += size_bytes
            while len(self._held) > 1 and (len(self._held) > MAX_LEASES or self._leased_bytes > self._limit_bytes):
                self._release_oldest()
            return True

    def release_all(self) -> None:
        """Release all leases."""
        with self._guard, not_forking():
            while self._held:
                self._release_oldest()

    def _release_oldest(self) -> None:
        _, (descriptor, size_bytes) = self._held.popitem(last=False)
        self._leased_bytes -= size_bytes
        os.close(descriptor)


def lock_against_leases(path: Path) -> int | None:
    """Lock a file unless it is leased or does not exist. Return a descriptor for the caller to close, or None."""
    return _try_to_lock(path, shared=False)


def _try_to_lock(path: Path, *, shared: bool) -> int | None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        if try_flock(descriptor, shared=shared):
            return descriptor
        os.close(descriptor)
    return None
