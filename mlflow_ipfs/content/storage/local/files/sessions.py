"""Sessions: locked files, each of which shows that a process still uses its directories in ``tmp`` and ``views``.

The lock ends with the process, so the directories of a killed process can be told from directories in use.
"""

from __future__ import annotations

import atexit
import threading
import uuid
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.system.forking import forget_in_child
from mlflow_ipfs.content.system.locking import LockFile

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

HOLD_PREFIX: Final = "hold-"  # of the files of holds, which are locked in the same way
_open_sessions: set[Session] = set()


class Session:
    """The session of one open store in one process. It opens when first needed, and again after a fork."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk
        self._lock: LockFile | None = None
        self._has_views = False
        self._guard = threading.Lock()
        self._count = 0
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Forget the session, which belongs to the parent process."""
        self._guard = threading.Lock()
        self._lock = None
        self._has_views = False

    @property
    def is_open(self) -> bool:
        """Whether this process has created a draft or a view and has not ended the session yet."""
        return self._lock is not None

    @property
    def name(self) -> str:
        """The name of the session, which is opened if it is not open yet."""
        return self._open()

    def draft(self) -> Path:
        """Return a new path below ``tmp``."""
        name = self._open()
        with self._guard:
            self._count += 1
            return self._layout.tmp / name / f"{self._count:x}"

    def view_directory(self) -> Path:
        """Return a new, empty directory below ``views``."""
        directory = self._layout.views / self._open() / uuid.uuid4().hex
        self._has_views = True
        self._disk.make_directory(directory)
        return directory

    def close(self) -> None:
        """End the session and remove its directories. A session with views ends with the process instead."""
        if not self._has_views:
            self.end()

    def end(self) -> None:
        """End the session and remove its directories."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is not None:
            _remove(self._layout, self._disk, lock.path.name)
            lock.release()
            _open_sessions.discard(self)

    def _open(self) -> str:
        with self._guard:
            if self._lock is None:
                self._lock = lock_new(self._layout)
                _open_sessions.add(self)
            name = self._lock.path.name
            for parent in (self._layout.tmp, self._layout.views):
                self._disk.make_directory(parent / name)
            return name


def _end_all() -> None:
    """End all sessions when the process ends. A forked child has forgotten its parent's, so these stay."""
    for session in list(_open_sessions):
        session.end()


atexit.register(_end_all)


def lock_new(layout: Layout, prefix: str = "") -> LockFile:
    """Create and lock a new file below ``sessions``."""
    while True:
        file = LockFile(layout.sessions / f"{prefix}{uuid.uuid4().hex}", create=True)
        # A process that removes dead sessions may have found the file before it was locked.
        if file.try_lock() and file.path.exists():
            return file
        file.release()


def is_session_open(layout: Layout, name: str) -> bool:
    """Return whether the process of a session is alive and has not ended the session."""
    if not name.isalnum():
        return False
    try:
        file = LockFile(layout.sessions / name)
    except FileNotFoundError:
        return False
    except PermissionError:  # of another user
        return True
    try:
        return not file.try_lock()
    finally:
        file.release()


def remove_dead_sessions(layout: Layout, disk: Disk) -> None:
    """Remove the files of sessions whose processes have ended. Safe at any time."""
    names = {path.name for directory in (layout.tmp, layout.views, layout.sessions) for path in directory.iterdir()}
    for name in names:
        try:
            file = LockFile(layout.sessions / name)
        except FileNotFoundError:
            # A session locks its file before it creates its directories: without the file they are not in use.
            _remove(layout, disk, name)
            continue
        except PermissionError:  # of another user, whose processes remove it; `doctor` reports it if they cannot
            continue
        try:
            if file.try_lock():
                _remove(layout, disk, name)
        finally:
            file.release()


def _remove(layout: Layout, disk: Disk, name: str) -> None:
    disk.remove_tree(layout.tmp / name)
    disk.remove_tree(layout.views / name)
    disk.remove(layout.sessions / name)
