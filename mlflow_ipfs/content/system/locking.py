"""Locks between processes: ``flock`` with a timeout, and an error that names the process that holds the lock.

A lock ends with the process that holds it. Each holder has its own open file, so the locks also exclude threads of one
process from each other.
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

_NUMBER_BYTES: Final = 10  # longer than any process number; shorter than what others write at the start of lock files
_FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.05


def try_flock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting. Return whether the lock was acquired."""
    if sys.platform == "win32":
        msg = "a local store needs flock, which Windows does not have; use it under WSL2"
        raise OSError(msg)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked_directory(directory: Path, purpose: str, *, timeout_seconds: float = 0) -> Iterator[None]:
    """Hold an exclusive lock on a directory for the duration of a ``with`` block. No lock file is needed.

    Args:
        directory: an existing directory.
        purpose: a verb phrase for the error message, which says what the holder of the lock does to the path.
        timeout_seconds: how long to wait.

    Raises:
        StoreBusyError: the lock was not free in time.
    """
    with _locked(directory, os.O_DIRECTORY, purpose, timeout_seconds):
        yield


@contextmanager
def locked_foreign_file(path: Path, purpose: str, *, timeout_seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on a file of another user, which this user may only read, for the duration of a ``with``.

    Args:
        path: the file.
        purpose: a verb phrase for the error message, which says what the holder of the lock does to the path.
        timeout_seconds: how long to wait.

    Raises:
        StoreBusyError: the lock was not free in time.
        OSError: this user may not read the file.
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
        if not is_held or not _is_current(path, descriptor):
            msg = f"another process {purpose} {path}; wait until that process ends or stop it, then try again"
            raise StoreBusyError(msg)
        yield
    finally:
        os.close(descriptor)


def _is_current(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


class LockFile:
    """An open file that can be locked. A lock lasts until ``release``, or until the process ends.

    Args:
        path: the file.
        create: create the file, which must not exist.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._descriptor: int | None = None
        with not_forking():  # otherwise a child could inherit the open file unregistered, and keep the lock
            self._descriptor = create_file(path, os.O_RDWR) if create else os.open(path, os.O_RDWR)
            forget_in_child(self)

    def try_lock(self, *, shared: bool = False) -> bool:
        """Acquire the lock without waiting, and write the process number to the file. Return whether it succeeded."""
        assert self._descriptor is not None
        if not try_flock(self._descriptor, shared=shared):
            return False
        with suppress(OSError):  # the number only serves error messages, so a full disk is no reason to fail
            # Every number has the same width, so no other number has to be cut off: file systems write a file that was
            # truncated to disk when it is closed, which would take longer than the rest of a small publication.
            os.pwrite(self._descriptor, f"{os.getpid():<{_NUMBER_BYTES}}".encode(), 0)
        return True

    def write_text(self, text: str) -> None:
        """Overwrite the process number at the start of the locked file with a text for other processes to read."""
        assert self._descriptor is not None
        os.pwrite(self._descriptor, text.encode(), 0)

    def write_at(self, data: bytes, offset: int) -> None:
        """Write bytes to the locked file for other processes to read."""
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def release(self) -> None:
        """Release the lock. A second call is a no-op."""
        with not_forking():
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def __del__(self) -> None:
        """Release the lock if Ctrl-C came before the caller stored this object: otherwise no code would release it."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def after_fork_in_child(self) -> None:
        """Close the child's copy of the descriptor. If it stayed open, the lock would outlive the parent's release."""
        self.release()


class KeyedLocks:
    """Locks between the threads of this process, one per key. A lock exists while a thread holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[bytes, threading.Lock] = WeakValueDictionary()
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Start with no locks: a lock held by a thread of the parent would never be released in the child."""
        self._guard = threading.Lock()
        self._locks = WeakValueDictionary()

    @contextmanager
    def of(self, key: bytes) -> Iterator[None]:
        """Hold the lock of a key for the duration of a ``with`` block. The wait has no timeout.

        The holder is a thread of this process.
        """
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = threading.Lock()
        with lock:
            yield


class FileLock:
    """A lock file. The lock is not reentrant.

    Args:
        path: the file, which must exist.
        timeout_seconds: how long to wait for the lock.
        purpose: a verb phrase for the message of ``StoreBusyError``, which says what the holder of the lock does.
    """

    def __init__(self, path: Path, *, timeout_seconds: float, purpose: str) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._purpose = purpose
        # Threads queue here instead of polling the file. Reentrant only for a thread that Ctrl-C interrupts between
        # acquiring the turn and recording it in self._thread: that thread must not deadlock with itself.
        self._turn = threading.RLock()
        self._thread: int | None = None  # the thread that has the turn
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Start with no turn taken: a thread of the parent may have held the turn at the time of the fork."""
        self._turn = threading.RLock()
        self._thread = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock exclusively for the duration of a ``with`` block.

        Raises:
            StoreBusyError: the lock was not free in time.
            StoreFormatError: the lock file does not exist.
            PolicyError: this user may not use the lock file.
        """
        deadline = time.monotonic() + self._timeout_seconds
        turn = self._turn  # a fork replaces the attribute in the child
        own = threading.get_ident()
        if self._thread == own or not turn.acquire(timeout=self._timeout_seconds):  # never wait for this very thread
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
        """Acquire a shared lock, and return the file that holds the lock until its ``release``.

        Raises:
            StoreBusyError: another holder kept an exclusive lock for too long.
            StoreFormatError: the lock file does not exist.
            PolicyError: this user may not use the lock file.
        """
        return self._acquire(time.monotonic() + self._timeout_seconds, shared=True)

    def _acquire(self, deadline: float, *, shared: bool) -> LockFile:
        try:
            file = LockFile(self._path)
        except FileNotFoundError as error:
            # A new file would not exclude a process that still holds a lock on the old file.
            msg = (
                f"the lock file {self._path} is missing: the store was moved or deleted, or the file was removed. "
                "Restore the store; or stop every program that uses it, and then create an empty file of that name"
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
        """Return the error that names the process that holds the lock."""
        try:
            holder = int(self._path.read_text() or "0")
        except (OSError, ValueError):
            holder = 0
        holder_text = f"process {holder} (the last holder of the lock)" if holder else "another process"
        msg = (
            f"{self._path.parent} is locked: {holder_text} {self._purpose}, and the lock was not free within "
            f"{self._timeout_seconds:g} s. Wait until that process ends or stop it, then try again"
        )
        return StoreBusyError(msg)
