"""Export of one file or symlink.

The bytes are verified block by block, or come from a file that the store keeps contiguous and has checked.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import check_symlink
from mlflow_ipfs.content.files.destination import atomic_replace
from mlflow_ipfs.content.files.file_reader import UnixFSFile
from mlflow_ipfs.content.system.file_copy import copy_bytes, write_all
from mlflow_ipfs.errors import IntegrityError, PolicyError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.dag import UnixFSNode

_logger = logging.getLogger(__name__)

# Reading the blocks of a smaller file is faster than asking the store for a contiguous file.
_MIN_WHOLE_BYTES: Final = 64 << 10


class FileLinker(Protocol):
    """Source of whole files that can be placed without reading their blocks. Part of ``Storage``."""

    def file_path(self, cid: CID) -> Path | None:
        """Return a path to the content of a file. See ``Storage.file_path``."""

    def ensure_file(self, cid: CID) -> Path | None:
        """Return a path to the content of a file, which is assembled if necessary. See ``Storage.ensure_file``."""

    def link_file(self, source: Path, destination: Path) -> None:
        """Place content at a path. See ``Storage.link_file``."""


class FileExporter:
    """Writer of files and symlinks.

    Args:
        reader: provides the blocks.
        linker: provides the files that the store keeps contiguous; None to always write block by block.
        share: whether such a file may share bytes with the store; if False, it is copied.
        allow_outside_links: whether symlinks that point out of the destination are restored.
        progress: called with the number of bytes just written.
    """

    def __init__(
        self,
        reader: BlockReader,
        *,
        linker: FileLinker | None,
        share: bool,
        allow_outside_links: bool,
        progress: Callable[[int], None],
    ) -> None:
        self._reader = reader
        self._linker = linker
        self._share = share
        self._allow_outside_links = allow_outside_links
        self._progress = progress

    def export(self, node: UnixFSNode, target: Path, depth: int) -> None:
        """Write a file or symlink. An existing one is replaced once the new one is complete.

        Args:
            node: the root of the file or symlink.
            target: the path to write to.
            depth: number of directories of the content above it. At 0, missing parent directories are created.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged; the target is unchanged.
            InvalidPathError: a path exists with another type, or was removed or replaced meanwhile.
            PolicyError: a symlink points out of the destination.
            InvalidDataError: a symlink has no usable target, or the file's nodes are malformed.
            OSError: the operating system reports another error; the error names the destination.
            StoreFullError: the disk of the destination is full.
        """
        _logger.debug("%s: writing to %r", node.cid, target.name)
        with atomic_replace(target, node.data, parents=depth == 0) as temporary:
            if node.data.type is NodeType.SYMLINK:
                temporary.symlink_to(self._checked_link(node, target, depth))
            else:
                self._write_file(node, target, temporary)

    def _write_file(self, node: UnixFSNode, target: Path, temporary: Path) -> None:
        """Write a file to the temporary path of a target."""
        # The linker may create a hard link. Setting a mode or a time on it would change the file of the store, too.
        may_link = self._share and node.data.mode is None and node.data.mtime_ns is None
        whole = self._find_whole(node, may_link=may_link) if may_link or node.size_bytes >= _MIN_WHOLE_BYTES else None
        if whole is not None and may_link and self._linker is not None:
            self._linker.link_file(whole, temporary)
            self._progress(node.size_bytes)
            return
        _check_room(node, target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if whole is None or not self._copy_whole(node, whole, descriptor):
                self._write_blocks(node, descriptor)
                _logger.debug("%s: wrote block by block, each verified", node.cid)
        finally:
            os.close(descriptor)

    def _find_whole(self, node: UnixFSNode, *, may_link: bool) -> Path | None:
        """Return a contiguous file of the store with the content, or None. Assemble one only if it may be linked."""
        if self._linker is None:
            return None
        return self._linker.ensure_file(node.cid) if may_link else self._linker.file_path(node.cid)

    def _copy_whole(self, node: UnixFSNode, whole: Path, descriptor: int) -> bool:
        """Copy a contiguous file that the store has just checked. Return False if it cannot be read.

        Raises:
            IntegrityError: the file changed while it was copied.
        """
        try:
            source = whole.open("rb", buffering=0)
        except (FileNotFoundError, PermissionError):
            # gc or a repair has moved the blocks meanwhile. Or this user lacks read permission on the file: reading a
            # block raises the error that explains it.
            return False
        _logger.debug("%s: copying the file %s", node.cid, whole)
        with source:
            before = os.fstat(source.fileno())
            try:
                copied = copy_bytes(source.fileno(), descriptor, self._progress)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                os.ftruncate(descriptor, 0)  # bad sector: reading block by block heals or names the block
                os.lseek(descriptor, 0, os.SEEK_SET)
                return False
            after = os.fstat(source.fileno())
        if copied != node.size_bytes or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            msg = f"the stored file of {node.cid} changed while it was copied; the destination is unchanged. Try again"
            raise IntegrityError(msg)
        return True

    def _write_blocks(self, node: UnixFSNode, descriptor: int) -> None:
        """Write the bytes of a file block by block, each verified."""
        for piece in UnixFSFile(self._reader, node).pieces():
            write_all(descriptor, piece)
            self._progress(len(piece))

    def _checked_link(self, node: UnixFSNode, target: Path, depth: int) -> str:
        """Return the target of a symlink.

        Raises:
            PolicyError: the link may point out of the destination.
        """
        link = os.fsdecode(check_symlink(node.cid, node.data))
        if not self._allow_outside_links and _leaves_directory(link, depth):
            subject = (
                f"the symlink {target.name!r} in the content" if depth else f"the content {node.cid} is a symlink that"
            )
            msg = (
                f"{subject} points to {link!r}, which may be outside the destination; it was not written. "
                "To write such links, allow them (`get --allow-outside-links`)"
            )
            raise PolicyError(msg)
        return link


def _check_room(node: UnixFSNode, target: Path) -> None:
    """Raise if the disk has no room for a file. A small file is not checked, because its write fails early enough.

    Raises:
        StoreFullError: the file is larger than the free space.
    """
    if node.size_bytes < _MIN_WHOLE_BYTES:
        return
    free = shutil.disk_usage(target.parent).free
    if node.size_bytes > free:
        msg = (
            f"the file {node.cid} has {node.size_bytes} bytes, but the disk of {str(target)!r} has only "
            f"{free} bytes free; free some space or write to another disk"
        )
        raise StoreFullError(msg)


def _leaves_directory(link: str, depth: int) -> bool:
    """Return whether a link that is ``depth`` levels below the destination may point out of it.

    A ``..`` after a name counts as pointing out: the name may be a symlink to a higher directory, and ``name/..`` is
    then the parent of that directory. Leading ``..`` parts ascend real directories, so counting them is enough.
    """
    if link.startswith("/"):
        return True
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ascents = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return ascents > depth - 1 or ".." in parts[ascents:]
