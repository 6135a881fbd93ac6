"""Exporter: DAGs become files, folders and symlinks on disk again.

Names come from content that may be hostile. Every name is checked, nothing is written through a
symlink, and a file appears under its name only when all its bytes are there and verified: block by
block, or, where the store keeps the file whole, as ``Storage.file_path`` verifies it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mlflow_ipfs.content.dag import MAX_FOLDER_DEPTH, UnixFSNode, check_symlink, iterate_folder, read_unixfs
from mlflow_ipfs.content.destination_faults import destination_faults
from mlflow_ipfs.content.file_reader import UnixFSFile
from mlflow_ipfs.content.seen_blocks import SeenBlocks
from mlflow_ipfs.content.small_blocks_ahead import MAX_BLOCKS, SMALL_BYTES, SmallBlocksAhead
from mlflow_ipfs.content.system.file_copy import copy_bytes, write_all
from mlflow_ipfs.content.tree_size import check_tree_size, measure_tree
from mlflow_ipfs.content.unixfs import NodeType
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, InvalidPathError, PolicyError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.unixfs import UnixFSData

_MEASURED_REPEATS: Final = 10_000  # so many entries of shared directories are written before all are counted
_WORTH_ASKING_BYTES: Final = 64 << 10  # of smaller files the bytes are here before the store has said where they lie
_RESTORED_MODE: Final = 0o777  # never set-uid, set-gid or sticky: content does not grant rights


class FileLinker(Protocol):
    """Places whole files without reading them through blocks. Half of ``Storage``."""

    def file_path(self, cid: CID) -> Path | None:
        """See ``Storage.file_path``."""

    def ensure_file(self, cid: CID) -> Path | None:
        """See ``Storage.ensure_file``."""

    def link_file(self, source: Path, destination: Path) -> None:
        """See ``Storage.link_file``."""


class _Item(NamedTuple):
    """Something to write.

    Attributes:
        cid: the block.
        target: where it is written.
        depth: how many levels below the destination.
        below_bytes: what the link to it says of the size of all blocks from there on.
        written: the fields of a directory whose entries are all written; what is left are its mode and its times.
    """

    cid: CID
    target: Path
    depth: int
    below_bytes: int | None = None
    written: UnixFSData | None = None

    @property
    def is_small(self) -> bool:
        return self.below_bytes is not None and self.below_bytes <= SMALL_BYTES


class Exporter:
    """Writes content below one destination.

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
        linker: FileLinker | None = None,
        share: bool = True,
        allow_outside_links: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._reader = SmallBlocksAhead(reader)
        self._linker = linker
        self._share = share
        self._allow_outside_links = allow_outside_links
        self._progress = progress or (lambda _: None)

    def export(self, cid: CID, destination: Path) -> None:
        """Write a file, symlink or folder to ``destination``.

        An existing file is replaced; an existing folder is merged into, file by file. Folders above it are made.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged; files before it are complete.
            InvalidPathError: something is in the way, or is removed or replaced meanwhile.
            OSError: the system refuses it for another reason; the error names the destination.
            PolicyError: a symlink points outside.
            InvalidDataError: the content is no UnixFS, or breaks a limit, as that of ``check_tree_size``.
            StoreFullError: no room at the destination.
        """
        todo = [_Item(cid, destination, 0)]
        repeats = _Repeats(self._reader, cid)
        while todo:
            item = todo.pop()
            if item.written is not None:  # only now, because writing into a directory changes its mtime
                _finish_folder(item.target, item.written)
                continue
            if item.is_small and not self._reader.is_ahead(item.cid):
                self._reader.read_ahead([item.cid, *_small_ones_next(todo)])
            node = read_unixfs(self._reader, item.cid)
            if node.data.is_directory:
                _make_folder(item.target, item.depth)
                todo.append(item._replace(written=node.data))
                links = [_Item(link.cid, item.target / os.fsdecode(link.name or b""), item.depth + 1, link.size_bytes)
                         for link in iterate_folder(self._reader, node)]  # fmt: skip
                repeats.count(item.cid, len(links))
                todo.extend(reversed(links))
            else:
                self._export_single(node, item.target, item.depth)

    def _export_single(self, node: UnixFSNode, target: Path, depth: int) -> None:
        with destination_faults(target):
            self._place(node, target, depth)

    def _place(self, node: UnixFSNode, target: Path, depth: int) -> None:
        if depth == 0:
            target.parent.mkdir(parents=True, exist_ok=True)
        if _is_folder(target):
            msg = f"{str(target)!r} is a folder, and the content has a file of that name"
            raise InvalidPathError(msg)
        if node.data.type is NodeType.SYMLINK:
            self._export_symlink(node, target, depth)
            return
        with _replacing(target, node) as temporary:
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
        except FileNotFoundError:  # a gc or a repair came in between, and the blocks lie elsewhere now
            return False
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

    def _export_symlink(self, node: UnixFSNode, target: Path, depth: int) -> None:
        link = os.fsdecode(check_symlink(node.cid, node.data))
        if not self._allow_outside_links and _leaves_folder(link, depth):
            place = f"the symlink {target.name!r}" if depth else "the content itself, a symlink,"
            msg = (
                f"{place} would point to {link!r}, which may lead out of the content: refused, "
                "unless links that point outside are allowed (`get --allow-outside-links`)"
            )
            raise PolicyError(msg)
        with _replacing(target, node) as temporary:
            temporary.symlink_to(link)


class _Repeats:
    """Guard against content whose directories occur in it so often that the disk would fill up.

    Args:
        reader: where the blocks are.
        root: the content.
    """

    def __init__(self, reader: BlockReader, root: CID) -> None:
        self._reader = reader
        self._root = root
        self._seen = SeenBlocks()
        self._left = _MEASURED_REPEATS

    def count(self, directory: CID, entries: int) -> None:
        """Note a directory that is written now.

        Raises:
            InvalidDataError: directories were written again so often that all was counted, and it is too much.
        """
        if self._seen.add(directory) or self._left < 0:
            return
        self._left -= entries + 1
        if self._left < 0:
            check_tree_size(self._root, measure_tree(self._reader, read_unixfs(self._reader, self._root)))


def _small_ones_next(todo: list[_Item]) -> list[CID]:
    """What comes after this, up to the first that is not small."""
    ahead = (item for item in reversed(todo[-MAX_BLOCKS:]) if item.written is None)
    return [item.cid for item in takewhile(lambda item: item.is_small, ahead)]


def _check_room(node: UnixFSNode, temporary: Path) -> None:
    """Refuse what the disk has no room for before it is written; of small files that shows soon enough."""
    if node.size_bytes < _WORTH_ASKING_BYTES:
        return
    free = shutil.disk_usage(temporary.parent).free
    if node.size_bytes > free:
        msg = f"{node.cid} has {node.size_bytes} bytes and the disk of {str(temporary.parent)!r} has {free} left"
        raise StoreFullError(msg)


def _leaves_folder(link: str, depth: int) -> bool:
    """Whether a link that stands ``depth`` levels below the destination may lead out of it.

    A ``..`` after a name counts as leading out: the name may be a symlink that leads up, and
    then ``name/..`` is above it. Leading ones go up real folders, so they can be counted.
    """
    if link.startswith("/"):
        return True
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return ups > depth - 1 or ".." in parts[ups:]


def _is_folder(target: Path) -> bool:
    """Whether a folder is there itself, and not a symlink to one."""
    try:
        return stat.S_ISDIR(os.lstat(target).st_mode)
    except FileNotFoundError:
        return False


def _make_folder(target: Path, depth: int) -> None:
    if depth > MAX_FOLDER_DEPTH:
        msg = f"the content has folders nested deeper than {MAX_FOLDER_DEPTH} levels"
        raise InvalidDataError(msg)
    with destination_faults(target):
        try:
            target.mkdir(parents=depth == 0)
        except FileExistsError:
            if not _is_folder(target):
                msg = f"{str(target)!r} is in the way: it is no folder, and the content has a folder of that name"
                raise InvalidPathError(msg) from None


def _finish_folder(target: Path, data: UnixFSData) -> None:
    with destination_faults(target):
        if not _is_folder(target):  # a symlink would take the mode and the time to what it leads to
            msg = f"{str(target)!r} was removed or replaced while it was filled"
            raise InvalidPathError(msg)
        _restore_metadata(target, data)


@contextmanager
def _replacing(target: Path, node: UnixFSNode) -> Iterator[Path]:
    """A name beside the target; what is made there takes the target's place in one step, or is removed."""
    # That the name is free is seen when it is taken: with O_EXCL, or by an operation that fails if it exists.
    temporary = target.with_name(f".mlflow-ipfs-{secrets.token_hex(8)}")
    try:
        yield temporary
        _restore_metadata(temporary, node.data)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError, NotADirectoryError):  # its folder may be gone, too
            temporary.unlink()
        raise


def _restore_metadata(target: Path, data: UnixFSData) -> None:
    is_symlink = data.type is NodeType.SYMLINK
    if data.mode is not None and not is_symlink:
        target.chmod(data.mode & _RESTORED_MODE)
    if data.mtime_ns is not None:
        os.utime(target, ns=(data.mtime_ns, data.mtime_ns), follow_symlinks=not is_symlink)
