"""Publications that store nothing, to compute CIDs only."""

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
    """Publication that discards all data. ``commit`` returns 0 new bytes."""

    def put(self, cid: CID, data: bytes) -> None:
        """Discard the block."""

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Start a file whose bytes are discarded. With ``read_back``, a temporary file keeps them until ``finish``."""
        return _SpooledFile() if read_back else _HashOnlyFile()

    def has(self, cid: CID) -> bool:
        """Return False: no block is stored."""
        del cid
        return False

    def commit(self, changes: Changes | None = None) -> int:
        """Return 0. Nothing is stored."""
        del changes
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No-op: no resource is open."""


class _HashOnlyFile:
    """A file writer that discards all bytes."""

    def write(self, data: bytes | memoryview) -> None:
        """Discard the bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Raise ``ValueError``: the bytes were discarded."""
        del offset, length
        msg = "the bytes of this file were discarded; call begin_file with read_back=True to read them"
        raise ValueError(msg)

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """No-op: nothing was stored."""

    def discard(self) -> None:
        """No-op: nothing was stored."""


class _SpooledFile:
    """A file writer that keeps the bytes in an unnamed file in the system's temporary directory."""

    def __init__(self) -> None:
        self._disk = Disk()
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by finish or discard

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            StoreFullError: the disk of the temporary directory is full.
        """
        try:
            self._disk.write(self._file.fileno(), data)
        except OSError as error:
            if error.errno not in FULL_DISK_ERRORS:
                raise
            msg = (
                f"no space left in {tempfile.gettempdir()!r} for a stream that must be written before it is split; "
                "point TMPDIR to a larger disk"
            )
            raise StoreFullError(msg) from error

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        return self._disk.read_at(self._file.fileno(), offset, length)

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Discard the bytes."""
        del root, leaves
        self._file.close()

    def discard(self) -> None:
        """Discard the bytes."""
        self._file.close()
