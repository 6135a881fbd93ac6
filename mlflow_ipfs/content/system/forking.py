"""Safe ``fork``: resources that a child process must drop, and code during which the process must not fork.

A child shares the locks of its parent's open files. It also inherits the state of the mutexes inside SQLite, which may
be held by a thread that does not exist in the child. So a thread enters ``not_forking`` while it opens a lock or is
inside SQLite, and a fork waits for that thread for a limited time.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_WAIT_SECONDS: Final = 2.0  # then the process forks: a child that may hang is better than a parent that hangs


class ForkAware(Protocol):
    """Owner of a resource of this process that a child must not use."""

    def after_fork_in_child(self) -> None:
        """Drop the resource without external effects, because the parent still uses it."""


class Gate:
    """Gate between threads and forks. A fork waits until the threads inside have left, and blocks new ones."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: dict[int, int] = {}
        self._is_forking = False

    def enter(self) -> None:
        """Prevent the process from forking until ``leave``. Calls may be nested."""
        thread = threading.get_ident()
        with self._condition:
            if thread not in self._inside:
                self._condition.wait_for(lambda: not self._is_forking, _LONGEST_WAIT_SECONDS)
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def leave(self) -> None:
        """Undo one ``enter``. The process may fork again when no thread is inside."""
        thread = threading.get_ident()
        with self._condition:
            depth = self._inside.get(thread, 0) - 1
            if depth > 0:
                self._inside[thread] = depth
            else:
                self._inside.pop(thread, None)
                self._condition.notify_all()

    def before_fork(self) -> None:
        """Wait for the threads inside, and keep the lock of the condition: no other thread may hold it in a child."""
        self._condition.acquire()
        self._is_forking = True
        own = threading.get_ident()
        self._condition.wait_for(lambda: self._inside.keys() <= {own}, _LONGEST_WAIT_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let waiting threads enter."""
        self._is_forking = False
        self._condition.notify_all()
        self._condition.release()


_gate = Gate()
_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def current_gate() -> Gate:
    """Return the gate of this process."""
    return _gate


@contextmanager
def not_forking() -> Iterator[None]:
    """Prevent this process from forking for the duration of a ``with`` block, which must be short."""
    gate = current_gate()
    gate.enter()
    try:
        yield
    finally:
        gate.leave()  # in a child, this is the gate of the parent, which the child does not use


def forget_in_child(holder: ForkAware) -> None:
    """Call the holder's ``after_fork_in_child`` in every child process, as long as the holder exists."""
    _aware.add(holder)


def _before_fork() -> None:
    _gate.before_fork()


def _after_fork_in_parent() -> None:
    _gate.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _gate  # noqa: PLW0603 - one for each process
    _gate = Gate()
    for holder in list(_aware):
        holder.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
