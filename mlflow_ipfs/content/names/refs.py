"""Refs: mutable names for CIDs, changed by compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class Ref:
    """A name, the CID that it stands for now, and how often it has changed (from 1)."""

    name: str
    cid: CID
    version: int


class Refs(Protocol):
    """The refs of one store. What a ref names is kept, as if pinned."""

    def get(self, name: str) -> Ref:
        """Read a ref.

        Raises:
            NotFoundError: no ref of that name.
        """

    def set(self, name: str, cid: CID, *, expected_version: int) -> Ref:
        """Point a ref at a CID, if it still has the expected version (0: it must be new).

        Raises:
            ConflictError: somebody changed it first; read it again and decide anew.
            NotFoundError: the root block of the CID is not in the store.
        """

    def delete(self, name: str, *, expected_version: int) -> None:
        """Remove a ref, under the same condition as ``set``."""

    def list(self, prefix: str = "") -> Iterator[Ref]:
        """Refs in order of name."""
