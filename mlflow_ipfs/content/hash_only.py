"""Publications that keep nothing: for computing CIDs only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from mlflow_ipfs.content.blockstore.interface import Changes, Leaf
    from mlflow_ipfs.content.cid import CID


class HashOnlyPublication:
    """Takes everything and keeps nothing. Its ``commit`` reports no new bytes."""

    def put(self, cid: CID, data: bytes) -> None:
        """Forget the block."""

    def begin_file(self) -> _HashOnlyFile:
        """Start a file that goes nowhere."""
        return _HashOnlyFile()

    def has(self, cid: CID) -> bool:
        """Nothing is ever here."""
        del cid
        return False

    def commit(self, changes: Changes | None = None) -> int:
        """Do nothing."""
        del changes
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""


class _HashOnlyFile:
    def write(self, data: bytes | memoryview) -> None:
        """Forget the bytes."""

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Forget the file."""

    def discard(self) -> None:
        """Nothing to forget."""
