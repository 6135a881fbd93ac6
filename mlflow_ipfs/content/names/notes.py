"""Notes: short texts that a layer above keeps in the store, by key. They keep no content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notes(Protocol):
    """The notes of one store. They are durable, and part of every backup of it."""

    def set(self, key: str, value: str) -> None:
        """Write a note, over an earlier one with the same key."""

    def delete(self, key: str) -> bool:
        """Remove a note. Returns whether it existed."""

    def list(self, prefix: str = "") -> Mapping[str, str]:
        """Return the notes whose keys start with a prefix, in order of key."""
