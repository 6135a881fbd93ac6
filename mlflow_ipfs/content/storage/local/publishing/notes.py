"""Notes of a local store.

They are rows of `meta`, which stores of format 1 have had from the beginning. A version of this program that
does not know them leaves them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

KEY_PREFIX: Final = "note:"  # of the keys in `meta` that are notes


class LocalNotes:
    """The notes of a local store. See ``Notes``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def set(self, key: str, value: str) -> None:
        """Write a note."""
        with self._context.database.write() as connection:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (KEY_PREFIX + key, value),
            )

    def delete(self, key: str) -> bool:
        """Remove a note."""
        with self._context.database.write() as connection:
            gone = connection.execute("DELETE FROM meta WHERE key = ?", (KEY_PREFIX + key,))
        return bool(gone.rowcount)

    def list(self, prefix: str = "") -> Mapping[str, str]:
        """Return the notes whose keys start with a prefix, in order of key."""
        start = KEY_PREFIX + prefix
        with self._context.database.read() as connection:
            rows = connection.execute(
                "SELECT key, value FROM meta WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                (start, len(start), start),
            ).fetchall()
        return {key.removeprefix(KEY_PREFIX): value for key, value in rows}
