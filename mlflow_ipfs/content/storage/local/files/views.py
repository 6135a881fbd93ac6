"""Views: content laid out for a caller who may write into it, sharing bytes where that is safe."""

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

_SMALL_BYTES: Final = 64 << 10  # copying less than this is cheaper than asking for more
# What file systems answer when they can't share, or not between these two places.
_CANNOT_SHARE: Final = frozenset({
    errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS,
    errno.EBADF,  # FICLONE between a file and a place that can't be cloned to
})  # fmt: skip


class FileLinker:
    """Places the store's files elsewhere.

    Args:
        disk: where.
        mode: ``auto`` shares as well as it safely can; the others name the only way to try before copying.
    """

    def __init__(self, disk: Disk, mode: ViewMode) -> None:
        self._disk = disk
        self._mode = mode

    def link_file(self, source: Path, destination: Path) -> None:
        """See ``Storage.link_file``.

        Raises:
            ConflictError: something is at the destination.
            StoreFullError: the disk there is full.
        """
        try:
            with translate_full_disk_errors(destination.parent):
                self._link(source, destination)
        except FileExistsError as error:
            raise destination_exists(destination) from error

    def _link(self, source: Path, destination: Path) -> None:
        for name, share in self._ways(self._disk.status(source)):
            try:
                share(source, destination)
            except OSError as error:
                if error.errno not in _CANNOT_SHARE:
                    raise
                _logger.debug("%s: no %s can be made: %s", source, name, error.strerror)
            else:
                _logger.debug("%s: placed as a %s", source, name)
                return
        self._disk.copy(source, destination)
        _logger.debug("%s: placed as a copy", source)

    def _ways(self, status: os.stat_result) -> list[tuple[str, Callable[[Path, Path], None]]]:
        if status.st_size < _SMALL_BYTES or self._mode == "copy":
            return []
        ways: list[tuple[str, Callable[[Path, Path], None]]] = []
        if self._mode in ("auto", "reflink"):
            ways.append(("reflink", self._disk.clone))
        # For root, or through another owner's eyes, a hard link's mode 0444 protects nothing.
        user = os.geteuid()
        if self._mode in ("auto", "hardlink") and user != 0 and status.st_uid == user:
            ways.append(("hardlink", self._disk.link))
        return ways
