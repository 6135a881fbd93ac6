"""Whole files on disk, for callers that need a path instead of bytes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


def make_temporary_view_directory() -> Path:
    """Make a private directory in the system's temporary directory, for a store that cannot be written to."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-ipfs-view-"))
    atexit.register(remove_in_same_process, directory, os.getpid())
    return directory


def remove_in_same_process(directory: Path, pid: int) -> None:
    """Remove a directory at the exit of the process ``pid``, but not at the exit of a forked child."""
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


class Files(Protocol):
    """Contiguous files of a storage, and private copies of them."""

    def file_path(self, cid: CID) -> Path | None:
        """Return a read-only path to the whole, undamaged content of a file; None if it is not stored contiguously.

        The path is valid until the storage is closed or the content is deleted.

        Raises:
            IntegrityError: the file is damaged and could not be healed; it was moved to quarantine.
        """

    def ensure_file(self, cid: CID) -> Path | None:
        """Return what ``file_path`` returns. Assembles a large file that is stored in pieces in the cache first."""

    def ready_file(self, cid: CID) -> Path | None:
        """Return what ``file_path`` returns, without delay: None if the file must be hashed or assembled first."""

    def link_file(self, source: Path, destination: Path) -> None:
        """Create ``destination``, which the caller may write to, with the content of a path from ``file_path``.

        Bytes are shared only if writing to one path cannot change the other; otherwise they are copied.

        Raises:
            ConflictError: ``destination`` exists.
        """

    def make_view_directory(self) -> Path:
        """Make a new, empty, private directory that is removed when this process ends."""
