"""Notes: short texts that a higher layer stores by key. They do not retain content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notes(Protocol):
    """The notes of one store. They are durable, and part of every backup of the store."""

    def set(self, key: str, value: str) -> None:
        """Write a note. Replaces an earlier note with the same key."""

    def delete(self, key: str) -> bool:
        """Delete a note. Return whether it existed."""

    def list(self, prefix: str = "") -> Mapping[str, str]:
        """Return the notes whose keys start with a prefix, in order of key."""
