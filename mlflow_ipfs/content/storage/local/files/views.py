"""Views: copies of files that a caller may write to, with shared bytes where that is safe."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final, Literal

from mlflow_ipfs.content.storage.local.index.error_translation import translate_full_disk_errors
from mlflow_ipfs.content.storage.validation import destination_exists

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.system.disk import Disk

_logger = logging.getLogger(__name__)

ViewMode = Literal["auto", "reflink", "hardlink", "copy"]

_SMALL_BYTES: Final = 64 << 10  # copying a smaller file is cheaper than trying to share its bytes
# The errors of file systems that cannot share bytes, or not between these two paths.
_CANNOT_SHARE: Final = frozenset({
    errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS,
    errno.EBADF,  # FICLONE from a file to a destination that cannot be cloned to
})  # fmt: skip


class FileLinker:
    """Creates links to the store's files, or copies of them, outside the store.

    Args:
        disk: the disk to write to.
        mode: ``auto`` shares bytes in the best safe way. Each other mode names the only way to try before a copy.
    """

    def __init__(self, disk: Disk, mode: ViewMode) -> None:
        self._disk = disk
        self._mode = mode

    def link_file(self, source: Path, destination: Path) -> None:
        """Create a file with the bytes of a file of the store. See ``Storage.link_file``.

        Raises:
            ConflictError: the destination exists.
            StoreFullError: the disk of the destination is full.
        """
        try:
            with translate_full_disk_errors(destination.parent):
                self._link(source, destination)
        except FileExistsError as error:
            raise destination_exists(destination) from error

    def _link(self, source: Path, destination: Path) -> None:
        for method, share in self._sharing_methods(self._disk.status(source)):
            try:
                share(source, destination)
            except OSError as error:
                if error.errno not in _CANNOT_SHARE:
                    raise
                _logger.debug("%s: cannot create a %s: %s", source, method, error.strerror)
            else:
                _logger.debug("%s: shared as a %s", source, method)
                return
        self._disk.copy(source, destination)
        _logger.debug("%s: copied", source)

    def _sharing_methods(self, status: os.stat_result) -> list[tuple[str, Callable[[Path, Path], None]]]:
        if status.st_size < _SMALL_BYTES or self._mode == "copy":
            return []
        methods: list[tuple[str, Callable[[Path, Path], None]]] = []
        if self._mode in ("auto", "reflink"):
            methods.append(("reflink", self._disk.clone))
        # The mode 0444 of a hard link does not keep root or another owner from writing to the shared bytes.
        user = os.geteuid()
        if self._mode in ("auto", "hardlink") and user != 0 and status.st_uid == user:
            methods.append(("hardlink", self._disk.link))
        return methods
