"""Exporter: DAGs become files, directories and symlinks on disk again.

Names come from content that may be hostile: ``iterate_directory`` checks every one, and ``destination.py`` writes nothing
through a symlink. Here is the walk of the DAG; the export of one file is in ``file_exporter.py``.
"""

from __future__ import annotations

import os
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blocks.prefetching import MAX_BLOCKS, SMALL_BYTES, PrefetchingReader
from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.dag import MAX_DIRECTORY_DEPTH, iterate_directory, read_unixfs
from mlflow_ipfs.content.files.destination import finish_directory, make_directory
from mlflow_ipfs.content.files.file_exporter import FileExporter, FileLinker
from mlflow_ipfs.content.files.tree_size import check_tree_size, measure_tree
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.codecs.unixfs import UnixFSData

_MEASURED_REPEATS: Final = 10_000  # so many entries of shared directories are written before all are counted


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
        self._reader = PrefetchingReader(reader)
        self._files = FileExporter(
            self._reader,
            linker=linker,
            share=share,
            allow_outside_links=allow_outside_links,
            progress=progress or (lambda _: None),
        )

    def export(self, cid: CID, destination: Path) -> None:
        """Write a file, symlink or directory to ``destination``.

        An existing file is replaced; an existing directory is merged into, file by file. Directories above it are made.

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
                finish_directory(item.target, item.written)
                continue
            if item.is_small and not self._reader.is_ahead(item.cid):
                self._reader.read_ahead([item.cid, *_small_ones_next(todo)])
            node = read_unixfs(self._reader, item.cid)
            if node.data.is_directory:
                _check_depth(item.depth)
                # Read first: of a directory that cannot be read, nothing is left at the destination.
                links = [_Item(link.cid, item.target / os.fsdecode(link.name or b""), item.depth + 1, link.size_bytes)
                         for link in iterate_directory(self._reader, node)]  # fmt: skip
                make_directory(item.target, parents=item.depth == 0)
                todo.append(item._replace(written=node.data))
                repeats.count(item.cid, len(links))
                todo.extend(reversed(links))
            else:
                self._files.export(node, item.target, item.depth)


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
        """Count a directory that is written now.

        Raises:
            InvalidDataError: directories were written again so often that all was counted, and it is too much.
        """
        if self._seen.add(directory) or self._left < 0:
            return
        self._left -= entries + 1
        if self._left < 0:
            check_tree_size(self._root, measure_tree(self._reader, read_unixfs(self._reader, self._root)))


def _check_depth(depth: int) -> None:
    if depth > MAX_DIRECTORY_DEPTH:
        msg = f"the content has directories nested deeper than {MAX_DIRECTORY_DEPTH} levels"
        raise InvalidDataError(msg)


def _small_ones_next(todo: list[_Item]) -> list[CID]:
    """What comes after this, up to the first that is not small."""
    ahead = (item for item in reversed(todo[-MAX_BLOCKS:]) if item.written is None)
    return [item.cid for item in takewhile(lambda item: item.is_small, ahead)]
