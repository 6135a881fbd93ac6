"""Scan of a store: the small blocks of old indexes, then packs, then objects. Each block is hashed."""

from __future__ import annotations

import stat
import threading
import uuid
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.files.chunker import FixedSizeChunker, known_chunkers
from mlflow_ipfs.content.storage.local.files.drafts import QUARANTINE_PREFIX, root_in
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.storage.local.repair.rebuild.file_view import FileView
from mlflow_ipfs.content.storage.local.repair.rebuild.objects import ObjectReader
from mlflow_ipfs.content.storage.local.repair.rebuild.packs import add_pack
from mlflow_ipfs.content.storage.local.repair.rebuild.quarantine import move_durably
from mlflow_ipfs.content.storage.local.repair.rebuild.report import LeftFile
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.storage.local.repair.rebuild.index_copies import IndexCopies
    from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import NewIndex
    from mlflow_ipfs.content.system.disk import Disk


class StoreScan:
    """One scan of a whole store into a new index.

    Args:
        layout: the store.
        disk: performs every operation.
        new_index: the new index.
        copies: the copies of the old index.
        chunkers: chunkers by which files may have been cut, besides the known chunkers.
        progress: called with the bytes read since its last call.

    Attributes:
        damaged: files with some bad blocks.
        unusable: files without a usable block.
    """

    def __init__(
        self,
        layout: Layout,
        disk: Disk,
        new_index: NewIndex,
        copies: IndexCopies,
        *,
        chunkers: Iterable[Chunker],
        progress: Callable[[int], None] | None,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._index = new_index
        self._copies = copies
        self._objects = ObjectReader(new_index, [*chunkers, *_recorded_chunkers(copies), *known_chunkers()])
        self._progress = progress
        self._guard = threading.Lock()
        self.damaged: list[LeftFile] = []
        self.unusable: list[LeftFile] = []

    def run(self) -> None:
        """Scan inline blocks and packs first, because the walk of an object needs the nodes in them."""
        self._add_inline_blocks()
        names = self._list_regular_files(self._layout.files, "*/*")
        for name in names:
            if name.endswith(".car"):
                self._add_pack(name)
        for name in names:
            if not name.endswith(".car"):
                self._add_object(name)
        for name in self._list_regular_files(self._layout.quarantine, "*"):
            self._add_quarantined_object(name)
        for directory in {self._layout.files, *((self._layout.directory / name).parent for name in names)}:
            self._disk.sync_directory(directory)

    def _list_regular_files(self, directory: Path, pattern: str) -> list[str]:
        """Return the names of the regular files below a directory, in the form of the index."""
        found = (path for path in directory.glob(pattern) if stat.S_ISREG(path.lstat().st_mode))
        return sorted(path.relative_to(self._layout.directory).as_posix() for path in found)

    def _add_inline_blocks(self) -> None:
        for copy in self._copies.used:
            for multihash, data in copy.inline_blocks():
                if _is_block(multihash, data):
                    copy.blocks += self._index.add_inline(multihash, data)
                else:
                    copy.damaged.add("block")
            if copy.is_whole("block"):
                break

    def _add_pack(self, name: str) -> None:
        with self._open(name) as file:
            place_id = self._index.add_place(index_rows.PACK, name, file.stamp)
            good, problem = add_pack(self._index, place_id, file, lambda: self._copies.blocks_of(name))
            file.make_durable()
        self._finish_file(place_id, name, problem, is_used=good > 0)

    def _add_object(self, name: str) -> None:
        root = root_in(name)
        if root is None:
            self.unusable.append(LeftFile(name, "a store does not use such a file name"))
            return
        with self._open(name) as file:
            place_id = self._index.add_place(index_rows.OBJECT, name, file.stamp)
            if self._index.has_sound_object(root):
                return  # a duplicate, which the next gc removes
            is_used, problem = self._objects.add_object(place_id, file, root, lambda: self._copies.blocks_of(name))
            file.make_durable()
        if is_used:
            self._index.name_object(place_id, root, is_damaged=bool(problem))
        self._finish_file(place_id, name, problem, is_used=is_used)

    def _add_quarantined_object(self, name: str) -> None:
        """Add the good leaves of an object in quarantine. Its row gets no root, so it is never read as a whole file."""
        root = root_in(name)
        if root is None or not QUARANTINE_PREFIX.match(name.rpartition("/")[2]):
            return
        with self._open(name) as file:
            place_id = self._index.add_place(index_rows.OBJECT, name, file.stamp)
            self._index.mark_damaged(place_id)
            if not self._objects.add_object(place_id, file, root, lambda: self._copies.blocks_of(name))[0]:
                self._index.drop_place(place_id)
            file.make_durable()

    def _open(self, name: str) -> FileView:
        return FileView(self._disk, self._layout.directory / name, self._report_progress)

    def _report_progress(self, count: int) -> None:
        if self._progress is not None:
            with self._guard:
                self._progress(count)

    def _finish_file(self, place_id: int, name: str, problem: str, *, is_used: bool) -> None:
        """Record the damage of a file. Remove its row if it has no usable block."""
        if not is_used:
            self._index.drop_place(place_id)
            self.unusable.append(LeftFile(name, problem or "it is empty"))
        elif problem:
            self._index.mark_damaged(place_id)
            self.damaged.append(LeftFile(name, problem))

    def quarantine_unusable(self) -> list[LeftFile]:
        """Move files without a usable block to ``quarantine``, where gc keeps them. Return the moved files."""
        moved = []
        for file in self.unusable:
            name = f"{self._layout.quarantine.name}/{uuid.uuid4().hex[:8]}-{file.name.rpartition('/')[2]}"
            move_durably(self._disk, self._layout.directory / file.name, self._layout.directory / name)
            moved.append(LeftFile(name, file.reason))
        return moved


def _recorded_chunkers(copies: IndexCopies) -> list[Chunker]:
    """Return a chunker for each chunk size that old indexes have recorded."""
    sizes = {size for copy in copies.used for size in copy.chunk_sizes()}
    return [FixedSizeChunker(size) for size in sorted(sizes) if 0 < size <= MAX_LEAF_BYTES]


def _is_block(multihash: bytes, data: bytes) -> bool:
    try:
        return CID.from_bytes(bytes(CID(1, RAW, multihash))).matches(data)
    except (InvalidCIDError, InvalidDataError):
        return False


def measure_files(directory: Path) -> int:
    """Return about how many bytes a rebuild of a store has to read."""
    return sum(path.lstat().st_size for path in Layout(directory).files.glob("*/*"))
