"""Export of DAGs to files, directories and symlinks on disk.

Names come from content that may be hostile: ``iterate_directory`` checks each name, and ``destination.py`` never writes
through a symlink. This module walks the DAG; ``file_exporter.py`` exports one file.
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

_MEASURED_REPEATS: Final = 10_000  # entries of repeated directories that are written before the whole tree is measured


class _Item(NamedTuple):
    """A file, symlink or directory that remains to be written, or a directory that remains to be finished.

    Attributes:
        cid: the root block.
        target: the path to write to.
        depth: number of levels below the destination.
        dag_bytes: size in bytes of the block and all blocks below it, as the link to it states.
        written: for a directory whose entries are all written: its fields, to set the mode and the time from.
    """

    cid: CID
    target: Path
    depth: int
    dag_bytes: int | None = None
    written: UnixFSData | None = None

    @property
    def is_small(self) -> bool:
        return self.dag_bytes is not None and self.dag_bytes <= SMALL_BYTES


class Exporter:
    """Writer of content to a destination on disk.

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

        An existing file is replaced. Entries are added to an existing directory, and its files of the same names are
        replaced. Missing parent directories are created.

        Raises:
            NotFoundError, IntegrityError: a block is missing or damaged; files written before it are complete.
            InvalidPathError: a path exists with another type, or was removed or replaced meanwhile.
            OSError: the operating system reports another error; the error names the destination.
            PolicyError: a symlink points out of the destination.
            InvalidDataError: the content is not UnixFS, or exceeds a limit such as that of ``check_tree_size``.
            StoreFullError: the disk of the destination is full.
        """
        todo = [_Item(cid, destination, 0)]
        repeats = _Repeats(self._reader, cid)
        while todo:
            item = todo.pop()
            if item.written is not None:  # last, because writing into a directory changes its mtime
                finish_directory(item.target, item.written)
                continue
            if item.is_small and not self._reader.is_ahead(item.cid):
                self._reader.read_ahead([item.cid, *_next_small_items(todo)])
            node = read_unixfs(self._reader, item.cid)
            if node.data.is_directory:
                _check_depth(item.depth)
                # Read the entries first, so that a directory that cannot be read is not created at the destination.
                links = [_Item(link.cid, item.target / os.fsdecode(link.name or b""), item.depth + 1, link.size_bytes)
                         for link in iterate_directory(self._reader, node)]  # fmt: skip
                make_directory(item.target, parents=item.depth == 0)
                todo.append(item._replace(written=node.data))
                repeats.count(item.cid, len(links))
                todo.extend(reversed(links))
            else:
                self._files.export(node, item.target, item.depth)


class _Repeats:
    """Guard against content that repeats its directories so often that it would fill the disk.

    Args:
        reader: provides the blocks.
        root: the content.
    """

    def __init__(self, reader: BlockReader, root: CID) -> None:
        self._reader = reader
        self._root = root
        self._seen = SeenBlocks()
        self._left = _MEASURED_REPEATS

    def count(self, directory: CID, entries: int) -> None:
        """Count a directory that is being written.

        The whole tree is measured once more than ``_MEASURED_REPEATS`` entries are repeats.

        Raises:
            InvalidDataError: the tree exceeds the limit of ``check_tree_size``.
        """
        if self._seen.add(directory) or self._left < 0:
            return
        self._left -= entries + 1
        if self._left < 0:
            check_tree_size(self._root, measure_tree(self._reader, read_unixfs(self._reader, self._root)))


def _check_depth(depth: int) -> None:
    """Raise ``InvalidDataError`` if a directory is nested too deeply."""
    if depth > MAX_DIRECTORY_DEPTH:
        msg = (
            f"the content has directories nested deeper than {MAX_DIRECTORY_DEPTH} levels; export a subdirectory of it"
        )
        raise InvalidDataError(msg)


def _next_small_items(todo: list[_Item]) -> list[CID]:
    """Return the CIDs of the next items, up to the first that is not small."""
    ahead = (item for item in reversed(todo[-MAX_BLOCKS:]) if item.written is None)
    return [item.cid for item in takewhile(lambda item: item.is_small, ahead)]
