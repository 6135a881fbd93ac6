"""A disk on which one step fails, or that kills the process at one."""

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
        "remove": "frees room, and a file that stays is garbage, which the next session or gc removes",
        "remove_tree": "ignores what goes wrong",
        "allocate": "makes the reserve, without which a store works as well",
        "make_read_only": "is asked for where a mode may be impossible, and its failure changes nothing",
        "clone": "makes views; test_local_views.py fails it",
        "copy": "makes views; test_local_views.py fails it",
    }
)
_OF_SQLITE: Final = frozenset({"commit", "checkpoint", "copy_database"})


class KillingDisk(SteppedDisk):
    """Kills the process at the n-th step."""

    def __init__(self, steps: int) -> None:
        super().__init__(self._step)
        self._left = steps

    def _step(self, _: str) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class FaultyDisk(SteppedDisk):
    """Lets a number of fallible steps pass, fails one, and works again.

    Args:
        number: which error: ``errno.ENOSPC`` or ``errno.EIO``.

    Attributes:
        passing: how many fallible steps still pass; negative: none fails any more.
        failed: the step that failed, if one has.
        steps: the fallible steps that there were.
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
    """The error with which SQLite answers one of the system's."""
    is_full = number == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if is_full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if is_full else sqlite3.SQLITE_IOERR
    return error
