"""Composition of callbacks: one callback that forwards each hook to the parts that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def forward_hooks(target: object, parts: Sequence[object], base: type, hooks: Iterable[str]) -> None:
    """Set each hook on a callback to a call of all parts that override it. A hook that no part overrides stays as it is.

    Args:
        target: the callback that the framework calls.
        parts: the callbacks to forward to, in this order.
        base: the framework's class, whose hooks do nothing.
        hooks: the names of the hooks.
    """
    for hook in hooks:
        calls = [getattr(part, hook) for part in parts if getattr(type(part), hook) is not getattr(base, hook)]
        if calls:  # a hook of each batch has one part, which is called directly
            setattr(target, hook, calls[0] if len(calls) == 1 else _call_all(calls))


def _call_all(calls: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 - the arguments of any hook
        for one in calls:
            one(*arguments, **named)

    return call
