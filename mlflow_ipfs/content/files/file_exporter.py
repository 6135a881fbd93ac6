"""Export of one file or symlink: its bytes are verified block by block, or come from a file that the store keeps whole."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import check_symlink
from mlflow_ipfs.content.files.destination import replacing
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

_WORTH_ASKING_BYTES: Final = 64 << 10  # of smaller files the bytes are here before the store has said where they lie


class FileLinker(Protocol):
    """Places whole files without reading them through blocks. Half of ``Storage``."""

    def file_path(self, cid: CID) -> Path | None:
        """See ``Storage.file_path``."""

    def ensure_file(self, cid: CID) -> Path | None:
        """See ``Storage.ensure_file``."""

    def link_file(self, source: Path, destination: Path) -> None:
        """See ``Storage.link_file``."""


class FileExporter:
    """Writes files and symlinks.

    Args:
        reader: where the blocks are.
        linker: knows the files that the store keeps whole; None to always write block by block.
        share: whether the linker may place such a file, sharing bytes with the store; else it is copied.
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
        """Write a file or symlink; an existing one is replaced when the new one is complete.

        Args:
            node: its root.
            target: where to write.
            depth: how many directories of the content are above it; 0 for the root, above which directories are made.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged; nothing was placed.
            InvalidPathError: something is in the way, or is removed or replaced meanwhile.
            PolicyError: a symlink points outside.
            InvalidDataError: a symlink has no usable target, or the file's nodes are malformed.
            OSError: the system refuses it for another reason; the error names the destination.
            StoreFullError: no room at the destination.
        """
        _logger.debug("%s: to be written as %r", node.cid, target.name)
        with replacing(target, node.data, parents=depth == 0) as temporary:
            if node.data.type is NodeType.SYMLINK:
                temporary.symlink_to(self._checked_link(node, target, depth))
            else:
                self._write_file(node, temporary)

    def _write_file(self, node: UnixFSNode, temporary: Path) -> None:
        # A link may share more than bytes with the store: a mode or a time set on it would be set there, too.
        may_link = self._share and node.data.mode is None and node.data.mtime_ns is None
        whole = (
            self._find_whole(node, may_link=may_link) if may_link or node.size_bytes >= _WORTH_ASKING_BYTES else None
        )
        if whole is not None and may_link and self._linker is not None:
            self._linker.link_file(whole, temporary)
            self._progress(node.size_bytes)
            return
        _check_room(node, temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if whole is None or not self._copy_whole(node, whole, descriptor):
                self._write_blocks(node, descriptor)
                _logger.debug("%s: written block by block, each hashed", node.cid)
        finally:
            os.close(descriptor)

    def _find_whole(self, node: UnixFSNode, *, may_link: bool) -> Path | None:
        """A file of the store that is the content. What is only to be copied is not put together first."""
        if self._linker is None:
            return None
        return self._linker.ensure_file(node.cid) if may_link else self._linker.file_path(node.cid)

    def _copy_whole(self, node: UnixFSNode, whole: Path, descriptor: int) -> bool:
        """Copy a file that the store keeps whole and has just looked at. False if it is not there any more.

        Raises:
            IntegrityError: somebody changed it meanwhile.
        """
        try:
            source = whole.open("rb", buffering=0)
        except (FileNotFoundError, PermissionError):
            # A gc or a repair came in between, and the blocks are elsewhere now. Or this user may not read the file: the
            # store says so when a block of it is read.
            return False
        _logger.debug("%s: copied from the file %s", node.cid, whole)
        with source:
            before = os.fstat(source.fileno())
            try:
                copied = copy_bytes(source.fileno(), descriptor, self._progress)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                os.ftruncate(descriptor, 0)  # a bad sector: block by block it is named, or healed
                os.lseek(descriptor, 0, os.SEEK_SET)
                return False
            after = os.fstat(source.fileno())
        if copied != node.size_bytes or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            msg = f"the file of {node.cid}, {whole}, changed while it was copied. Nothing was placed; try again"
            raise IntegrityError(msg)
        return True

    def _write_blocks(self, node: UnixFSNode, descriptor: int) -> None:
        for piece in UnixFSFile(self._reader, node).pieces():
            write_all(descriptor, piece)
            self._progress(len(piece))

    def _checked_link(self, node: UnixFSNode, target: Path, depth: int) -> str:
        """Where a symlink points to; raises if it must not be restored."""
        link = os.fsdecode(check_symlink(node.cid, node.data))
        if not self._allow_outside_links and _leaves_directory(link, depth):
            place = f"the symlink {target.name!r}" if depth else "the content itself, a symlink,"
            msg = (
                f"{place} would point to {link!r}, which may lead out of the content: refused, "
                "unless links that point outside are allowed (`get --allow-outside-links`)"
            )
            raise PolicyError(msg)
        return link


def _check_room(node: UnixFSNode, temporary: Path) -> None:
    """Refuse what the disk has no room for before it is written; of small files that shows soon enough."""
    if node.size_bytes < _WORTH_ASKING_BYTES:
        return
    free = shutil.disk_usage(temporary.parent).free
    if node.size_bytes > free:
        msg = f"{node.cid} has {node.size_bytes} bytes and the disk of {str(temporary.parent)!r} has {free} left"
        raise StoreFullError(msg)


def _leaves_directory(link: str, depth: int) -> bool:
    """Whether a link that stands ``depth`` levels below the destination may lead out of it.

    A ``..`` after a name counts as leading out: the name may be a symlink that leads up, and
    then ``name/..`` is above it. Leading ones go up real directories, so they can be counted.
    """
    if link.startswith("/"):
        return True
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return ups > depth - 1 or ".." in parts[ups:]
