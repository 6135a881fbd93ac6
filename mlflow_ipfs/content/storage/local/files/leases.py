"""Leases: while a process may still use the path of a cached file, nobody evicts it.

A lease is a shared ``flock`` on the file itself, so it dies with the process. A path has no end of
use that anybody could see; so a process keeps the leases of the paths that it gave out last, up to
a size: else one that lives for months would come to lease all that ever was in the cache.
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
        limit_bytes: how large the leased files may be together; the last one is kept in any case.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._leased_bytes = 0
        self._held: OrderedDict[Path, tuple[int, int]] = OrderedDict()  # of each file the descriptor and the size
        self._guard = threading.Lock()
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Close the child's copies: with them open a lease would outlive the parent's."""
        self._guard = threading.Lock()
        self.release_all()

    def take(self, path: Path) -> bool:
        """Lease a file, or renew its lease. Returns False if it is gone, or about to be."""
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
        """Give all leases back."""
        with self._guard, not_forking():
            while self._held:
                self._release_oldest()

    def _release_oldest(self) -> None:
        _, (descriptor, size_bytes) = self._held.popitem(last=False)
        self._leased_bytes -= size_bytes
        os.close(descriptor)


def lock_against_leases(path: Path) -> int | None:
    """Lock a file that nobody has a lease of. Returns a descriptor to be closed, or None."""
    return _try_to_lock(path, shared=False)


def _try_to_lock(path: Path, *, shared: bool) -> int | None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        if try_flock(descriptor, shared=shared):
            return descriptor
        os.close(descriptor)
    return None
