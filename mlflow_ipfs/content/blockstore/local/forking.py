"""What a child process must forget after ``fork``: its parent's locks and database connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Holds something of this process that a child must not use."""

    def after_fork_in_child(self) -> None:
        """Let go of it, without a word to the outside: the parent still uses it."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def forget_in_child(holder: ForkAware) -> None:
    """Call the holder's ``after_fork_in_child`` in every child, as long as the holder lives."""
    _aware.add(holder)


def _after_fork_in_child() -> None:
    for holder in list(_aware):
        holder.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
