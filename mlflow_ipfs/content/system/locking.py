"""Locks between processes: ``flock`` with a limit on the wait, and a name for who is in the way.

A lock dies with the process that holds it. Each holder has its own open file, so threads of one
process exclude each other too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from mlflow_ipfs.content.system.access import refused
from mlflow_ipfs.content.system.forking import forget_in_child, not_forking
from mlflow_ipfs.content.system.ownership import create_file
from mlflow_ipfs.errors import StoreBusyError, StoreFormatError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.05


def try_flock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file if that is possible at once."""
    if sys.platform == "win32":
        msg = "the local store needs flock, which Windows does not have"
        raise OSError(msg)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked_directory(directory: Path, purpose: str, *, timeout_seconds: float = 0) -> Iterator[None]:
    """Hold a directory alone for the length of a ``with``. It needs no file in it, and leaves none.

    Args:
        directory: an existing directory.
        purpose: what whoever holds it does, for the message.
        timeout_seconds: how long to wait.

    Raises:
        StoreBusyError: it was not free in time.
    """
    with _locked(directory, os.O_DIRECTORY, purpose, timeout_seconds):
        yield


@contextmanager
def locked_foreign_file(path: Path, purpose: str, *, timeout_seconds: float) -> Iterator[None]:
    """Hold a file that another user has made, and that this user may only read, alone for the length of a ``with``.

    Args:
        path: the file.
        purpose: what the holder of the lock does, for the message.
        timeout_seconds: how long to wait.

    Raises:
        StoreBusyError: it was not free in time.
        OSError: this user may not even read it.
    """
    with _locked(path, os.O_NONBLOCK | os.O_NOFOLLOW, purpose, timeout_seconds):
        yield


@contextmanager
def _locked(path: Path, flags: int, purpose: str, timeout_seconds: float) -> Iterator[None]:
    with not_forking():
        descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        deadline = time.monotonic() + timeout_seconds
        while not (is_held := try_flock(descriptor)) and time.monotonic() < deadline:
            time.sleep(LONGEST_PAUSE_SECONDS)
        if not is_held or not _is_there(path, descriptor):
            msg = f"another process {purpose} {path} at this moment: wait for it or end it, and try again"
            raise StoreBusyError(msg)
        yield
    finally:
        os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


class LockFile:
    """An open file to be locked. A lock on it lasts until ``release``, or until the process ends.

    Args:
        path: the file.
        create: make it; it must not be there yet.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._descriptor: int | None = None
        with not_forking():  # a child that had the open file unknowingly would hold the lock for ever
            self._descriptor = create_file(path, os.O_RDWR) if create else os.open(path, os.O_RDWR)
            forget_in_child(self)

    def try_lock(self, *, shared: bool = False) -> bool:
        """Take the lock if that is possible at once, and say in the file who has it."""
        assert self._descriptor is not None
        if not try_flock(self._descriptor, shared=shared):
            return False
        with suppress(OSError):  # only a help for people: a full disk must not stand in the way
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        return True

    def write_text(self, text: str) -> None:
        """Write into the locked file, instead of the process's number, for others to read."""
        assert self._descriptor is not None
        os.pwrite(self._descriptor, text.encode(), 0)

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all of some bytes into the locked file, for others to read."""
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def release(self) -> None:
        """Let go. Calling it twice is no error."""
        with not_forking():
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def __del__(self) -> None:
        """Ctrl-C may come before whoever made this has it in his hands. A lock that nobody has must not last."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def after_fork_in_child(self) -> None:
        """Close the child's copy: with it open the lock would outlive the parent's release."""
        self.release()


class KeyedLocks:
    """Locks between the threads of this process, one per key. A lock exists as long as a thread holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[bytes, threading.Lock] = WeakValueDictionary()
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Start with no locks: a thread of the parent may hold one for ever."""
        self._guard = threading.Lock()
        self._locks = WeakValueDictionary()

    @contextmanager
    def of(self, key: bytes) -> Iterator[None]:
        """Hold the lock of a key for the length of a ``with``. The wait has no limit: the holder is in this process."""
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = threading.Lock()
        with lock:
            yield


class FileLock:
    """A lock file. Reentrant for nobody.

    Args:
        path: the file, which must exist.
        timeout_seconds: how long to wait for the lock.
        purpose: what the holder of the lock does, for the message of ``StoreBusyError``.
    """

    def __init__(self, path: Path, *, timeout_seconds: float, purpose: str) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._purpose = purpose
        # Threads queue here instead of polling. Reentrant only so that a thread whose turn was cut short by Ctrl-C,
        # between taking it and noting it, is not locked out by itself.
        self._turn = threading.RLock()
        self._thread: int | None = None  # whose turn it is
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """A thread of the parent may have had its turn at the moment of the fork."""
        self._turn = threading.RLock()
        self._thread = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone for the length of a ``with``.

        Raises:
            StoreBusyError: it was not free in time.
            StoreFormatError: its file is gone.
            PolicyError: this user may not use its file.
        """
        deadline = time.monotonic() + self._timeout_seconds
        turn = self._turn  # the attribute is another one after a fork
        own = threading.get_ident()
        if self._thread == own or not turn.acquire(timeout=self._timeout_seconds):  # waiting for oneself is no use
            raise self._busy()
        try:
            self._thread = own
            held = self._acquire(deadline, shared=False)
            try:
                yield
            finally:
                held.release()
        finally:
            self._thread = None
            turn.release()

    def acquire_shared(self) -> LockFile:
        """Hold the lock together with others, until the result is released.

        Raises:
            StoreBusyError: somebody held it alone for too long.
            StoreFormatError: its file is gone.
            PolicyError: this user may not use its file.
        """
        return self._acquire(time.monotonic() + self._timeout_seconds, shared=True)

    def _acquire(self, deadline: float, *, shared: bool) -> LockFile:
        try:
            file = LockFile(self._path)
        except FileNotFoundError as error:
            # Not made anew: whoever still holds the old file would not be waited for.
            msg = (
                f"{self._path} is missing, so the store was moved or deleted, or somebody removed the file. Put the store "
                "back; or end every program that uses it, and then make an empty file of that name"
            )
            raise StoreFormatError(msg) from error
        except PermissionError as error:
            raise refused(self._path.parent, error) from error
        try:
            self._wait(file, deadline, shared=shared)
        except BaseException:
            file.release()
            raise
        return file

    def _wait(self, file: LockFile, deadline: float, *, shared: bool) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not file.try_lock(shared=shared):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._busy()
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _busy(self) -> StoreBusyError:
        try:
            holder = int(self._path.read_text() or "0")
        except (OSError, ValueError):
            holder = 0
        who = f"process {holder}" if holder else "another process"
        msg = (
            f"{self._path} was not free within {self._timeout_seconds:g} s: {who} (the last to take it) {self._purpose}. "
            "Wait for it or end it, and try again"
        )
        return StoreBusyError(msg)
