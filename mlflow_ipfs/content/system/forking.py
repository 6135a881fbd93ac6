"""Living with ``fork``: what a child must forget, and when its parent must not fork.

A child shares the locks of its parent's open files, and finds the mutexes inside SQLite as they
were at that moment, held perhaps by a thread that the child doesn't have. So a thread that opens
a lock or is inside SQLite says so with ``not_forking``, and a fork waits for it for a moment.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_WAIT_SECONDS: Final = 2.0  # then the fork goes ahead: a child that may hang is better than a parent that does


class ForkAware(Protocol):
    """Holds something of this process that a child must not use."""

    def after_fork_in_child(self) -> None:
        """Let go of it, without a word to the outside: the parent still uses it."""


class Gate:
    """Many threads may be inside; a fork waits until they are out, and keeps others from entering."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: dict[int, int] = {}
        self._is_forking = False

    def enter(self) -> None:
        """Keep the process from forking until ``leave``; may be nested."""
        thread = threading.get_ident()
        with self._condition:
            if thread not in self._inside:
                self._condition.wait_for(lambda: not self._is_forking, _LONGEST_WAIT_SECONDS)
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def leave(self) -> None:
        """Let it fork again."""
        thread = threading.get_ident()
        with self._condition:
            depth = self._inside.get(thread, 0) - 1
            if depth > 0:
                self._inside[thread] = depth
            else:
                self._inside.pop(thread, None)
                self._condition.notify_all()

    def before_fork(self) -> None:
        """Wait, and then hold the condition's own lock, so that no thread has it in the child."""
        self._condition.acquire()
        self._is_forking = True
        own = threading.get_ident()
        self._condition.wait_for(lambda: self._inside.keys() <= {own}, _LONGEST_WAIT_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        self._is_forking = False
        self._condition.notify_all()
        self._condition.release()


_gate = Gate()
_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def current_gate() -> Gate:
    """The gate of this process."""
    return _gate


@contextmanager
def not_forking() -> Iterator[None]:
    """Keep this process from forking for the length of a ``with``, which must be short."""
    gate = current_gate()
    gate.enter()
    try:
        yield
    finally:
        gate.leave()  # in a child: of the parent's gate, which nobody uses there


def forget_in_child(holder: ForkAware) -> None:
    """Call the holder's ``after_fork_in_child`` in every child, as long as the holder lives."""
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
