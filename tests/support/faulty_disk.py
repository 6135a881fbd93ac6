"""Disks that fail one step, or kill the process at one step."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
from typing import Final

from support.storages import SteppedDisk, steps_except

FALLIBLE: Final = steps_except(
    {
        "remove": "frees space, and a file that remains is garbage, which the next session or gc removes",
        "remove_tree": "ignores errors",
        "allocate": "makes the reserve, which a store does not need to work",
        "make_read_only": "is used where the file system may not support modes, and its failure has no effect",
        "clone": "makes views; test_local_views.py fails it",
        "copy": "makes views; test_local_views.py fails it",
    }
)
_OF_SQLITE: Final = frozenset({"commit", "checkpoint", "copy_database"})


class KillingDisk(SteppedDisk):
    """Disk that kills the process at the n-th step."""

    def __init__(self, steps: int) -> None:
        super().__init__(self._step)
        self._left = steps

    def _step(self, _: str) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class FaultyDisk(SteppedDisk):
    """Disk on which one fallible step fails, after a number of successful ones, and all later steps succeed.

    Args:
        number: the error: ``errno.ENOSPC`` or ``errno.EIO``.

    Attributes:
        passing: number of fallible steps before the failure; if negative, no step fails.
        failed: the step that failed, or None.
        steps: all fallible steps so far.
    """

    def __init__(self, number: int) -> None:
        super().__init__(self._take)
        self._number = number
        self._guard = threading.Lock()
        self.passing = -1
        self.failed: str | None = None
        self.steps: list[str] = []

    def _take(self, step: str) -> None:
        if step not in FALLIBLE:
            return
        with self._guard:
            self.steps.append(step)
            self.passing -= 1
            if self.passing != -1 or self.failed is not None:
                return
            self.failed = step
        if step in _OF_SQLITE:
            raise _sqlite_error(self._number)
        raise OSError(self._number, os.strerror(self._number))


def _sqlite_error(number: int) -> sqlite3.OperationalError:
    """Return the SQLite error that corresponds to an error of the system."""
    is_full = number == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if is_full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if is_full else sqlite3.SQLITE_IOERR
    return error
