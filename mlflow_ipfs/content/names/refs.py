"""Refs: mutable names for CIDs, changed by compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class Ref:
    """A mutable name, its current CID, and its version, which starts at 1 and grows by 1 with every change."""

    name: str
    cid: CID
    version: int


class Refs(Protocol):
    """The refs of one store. A ref retains its content like a pin."""

    def get(self, name: str) -> Ref:
        """Return a ref.

        Raises:
            NotFoundError: the ref does not exist.
        """

    def set(self, name: str, cid: CID, *, expected_version: int) -> Ref:
        """Point a ref at a CID if the ref has the expected version. Version 0 means that it does not exist.

        Raises:
            ConflictError: another process changed the ref first. Read it again, and decide again.
            NotFoundError: the root block of the CID is not in the store.
        """

    def delete(self, name: str, *, expected_version: int) -> None:
        """Delete a ref, under the same condition as ``set``."""

    def list(self, prefix: str = "") -> Iterator[Ref]:
        """Yield the refs whose names start with a prefix, in order of name."""
