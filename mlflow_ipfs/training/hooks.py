"""Composition of callbacks: one callback that forwards each hook to the parts that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

GIVEN_TWICE: Final = (
    "the callback {name} is given twice, and the second one logs nothing: every point would be logged twice. IPFSCallback "
    "contains the single callbacks"
)


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
            setattr(target, hook, calls[0] if len(calls) == 1 else _CallAll(calls))


class _CallAll:
    """Call of several hooks. An instance, unlike a closure, can be sent to another process with its callback."""

    def __init__(self, calls: Sequence[Callable[..., None]]) -> None:
        self._calls = calls

    def __call__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - the arguments of any hook
        for call in self._calls:
            call(*arguments, **named)
