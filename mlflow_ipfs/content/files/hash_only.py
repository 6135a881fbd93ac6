"""Publications that keep nothing: for computing CIDs only."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Self

from mlflow_ipfs.content.system.disk import FULL_DISK_ERRORS, Disk
from mlflow_ipfs.errors import StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import Leaf
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.base import Changes, FileWriter


class HashOnlyPublication:
    """Takes everything and keeps nothing. Its ``commit`` reports no new bytes."""

    def put(self, cid: CID, data: bytes) -> None:
        """Forget the block."""

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Start a file whose bytes are dropped; or kept in a temporary file until it is finished, to be read back."""
        return _SpooledFile() if read_back else _HashOnlyFile()

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

    def read_at(self, offset: int, length: int) -> bytes:
        """Raise: the bytes were dropped."""
        del offset, length
        msg = "the file was begun without read_back"
        raise ValueError(msg)

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Forget the file."""

    def discard(self) -> None:
        """Nothing to forget."""


class _SpooledFile:
    """Bytes in a file without a name, below the system's temporary directory."""

    def __init__(self) -> None:
        self._disk = Disk()
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by finish or discard

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        try:
            self._disk.write(self._file.fileno(), data)
        except OSError as error:
            if error.errno not in FULL_DISK_ERRORS:
                raise
            msg = (
                f"no room left in {tempfile.gettempdir()!r} for a stream that must be written before it is cut; "
                "point TMPDIR to a larger disk"
            )
            raise StoreFullError(msg) from error

    def read_at(self, offset: int, length: int) -> bytes:
        """Read back bytes."""
        return self._disk.read_at(self._file.fileno(), offset, length)

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Forget the bytes."""
        del root, leaves
        self._file.close()

    def discard(self) -> None:
        """Forget the bytes."""
        self._file.close()
