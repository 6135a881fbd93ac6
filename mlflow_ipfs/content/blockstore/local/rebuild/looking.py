"""Looking through everything: old indexes, packs, objects, and what was set aside."""

from __future__ import annotations

import sqlite3
import stat
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blockstore.local import index
from mlflow_ipfs.content.blockstore.local.drafts import SET_ASIDE_PREFIX, root_in
from mlflow_ipfs.content.blockstore.local.layout import Layout
from mlflow_ipfs.content.blockstore.local.rebuild.aside import relocate
from mlflow_ipfs.content.blockstore.local.rebuild.file_view import FileView
from mlflow_ipfs.content.blockstore.local.rebuild.names import all_are_whole
from mlflow_ipfs.content.blockstore.local.rebuild.objects import ObjectReader
from mlflow_ipfs.content.blockstore.local.rebuild.old_index import OldIndex, list_old_indexes
from mlflow_ipfs.content.blockstore.local.rebuild.packs import add_pack
from mlflow_ipfs.content.blockstore.local.rebuild.report import LeftFile, OldIndexUse
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.local.index import NewBlock
    from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
    from mlflow_ipfs.content.system.disk import Disk


@dataclass(slots=True)
class OldIndexes:
    """Everything that is left of the store's index.

    Attributes:
        usable: newest first.
        useless: those of which nothing can be used, each with the reason.
        present: the store's own index, if it can be used.
    """

    usable: list[OldIndex] = field(default_factory=list)
    useless: list[OldIndexUse] = field(default_factory=list)
    present: OldIndex | None = None

    def close(self) -> None:
        """Let go of all files."""
        for source in self.usable:
            source.close()

    def blocks_of(self, name: str) -> Iterator[NewBlock]:
        """Where any of them has blocks in a file."""
        for source in self.usable:
            yield from source.blocks_of(name)

    def uses(self) -> tuple[OldIndexUse, ...]:
        """For the report."""
        found = [
            OldIndexUse(source.path, "damaged" if source.is_damaged else "whole", source.names, source.blocks)
            for source in self.usable
        ]
        return (*found, *self.useless)


def open_old_indexes(layout: Layout, store_id: str | None) -> OldIndexes:
    """Open what can be opened.

    Args:
        layout: the store.
        store_id: the store's id; None: that of the newest index that has one.

    Raises:
        StoreFormatError: one is of a newer version of this program.
    """
    found = OldIndexes()
    for path in list_old_indexes(layout):
        try:
            source = OldIndex(path)
        except (sqlite3.DatabaseError, ValueError) as error:
            found.useless.append(OldIndexUse(path, f"unusable: {error}"))
            continue
        store_id = store_id or source.store_id
        if source.store_id not in (None, store_id):
            found.useless.append(OldIndexUse(path, f"unusable: it is of the store {source.store_id}"))
            source.close()
            continue
        found.usable.append(source)
        if path == layout.database:
            found.present = source
    return found


class Look:
    """One look through a whole store, into a new index.

    Args:
        layout: the store.
        disk: where it is.
        draft: the new index.
        sources: what is left of the old one.
        cut_sizes: sizes in bytes that files may have been cut into.
        progress: told how many bytes were read since it was told last.

    Attributes:
        damaged: files of which some blocks are bad.
        unplaced: files of which nothing can be used, by their names below the store's folder.
    """

    def __init__(
        self,
        layout: Layout,
        disk: Disk,
        draft: IndexDraft,
        sources: OldIndexes,
        *,
        cut_sizes: Iterable[int],
        progress: Callable[[int], None] | None,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._draft = draft
        self._sources = sources
        self._cut_sizes = {*cut_sizes, *(size for source in sources.usable for size in source.cut_sizes())}
        self._progress = progress
        self._guard = threading.Lock()
        self.damaged: list[LeftFile] = []
        self.unplaced: list[LeftFile] = []

    def run(self) -> None:
        """Look at everything: blocks of nodes first, because objects are walked from them."""
        self._take_inline_blocks()
        files = sorted(self._names())
        objects = [(name, root) for name in files if (root := root_in(name)) is not None]
        for name in files:
            if name.endswith(".car"):
                self._take_pack(name)
            elif root_in(name) is None:
                self.unplaced.append(LeftFile(name, "its name is none that the store gives"))
        reader = ObjectReader(self._draft, self._cut_sizes)
        for name, root in objects:
            self._take_object(reader, name, root, is_in_use=True)
        for name in self._names_set_aside():
            root = root_in(name)
            if root is not None:
                self._take_object(reader, name, root, is_in_use=False)
        for folder in {self._layout.files, *((self._layout.folder / name).parent for name in files)}:
            self._disk.sync_folder(folder)

    def _take_inline_blocks(self) -> None:
        """Those of the newest index; if it is damaged, of older ones too. The others are kept in reserve."""
        is_complete = False
        for source in self._sources.usable:
            for multihash, data in source.inline_blocks():
                if not _is_block(multihash, data):
                    source.is_damaged = True
                elif is_complete:
                    self._draft.add_spare(multihash, data)
                else:
                    source.blocks += self._draft.add_inline(multihash, data)
            is_complete = is_complete or source.is_whole("block")

    def _names(self) -> Iterator[str]:
        """The regular files, as the index would name them."""
        for path in self._layout.files.glob("*/*"):
            if stat.S_ISREG(path.lstat().st_mode):
                yield f"{self._layout.files.name}/{path.parent.name}/{path.name}"

    def _names_set_aside(self) -> list[str]:
        quarantine = self._layout.quarantine
        return sorted(
            f"{quarantine.name}/{path.name}"
            for path in quarantine.iterdir()
            if SET_ASIDE_PREFIX.match(path.name) and stat.S_ISREG(path.lstat().st_mode)
        )

    def _tell(self, count: int) -> None:
        if self._progress is not None:
            with self._guard:
                self._progress(count)

    def _take_pack(self, name: str) -> None:
        with FileView(self._disk, self._layout.folder / name, self._tell) as file:
            place_id = self._draft.add_place(index.PACK, name, file.stamp)
            good, problem = add_pack(self._draft, place_id, file, lambda: self._sources.blocks_of(name))
            file.make_durable()
        self._settle(place_id, name, problem, is_used=good > 0)

    def _take_object(self, reader: ObjectReader, name: str, root: bytes, *, is_in_use: bool) -> None:
        with FileView(self._disk, self._layout.folder / name, self._tell) as file:
            place_id = self._draft.add_place(index.OBJECT, name, file.stamp)
            if is_in_use and self._draft.has_sound_object(root):
                return  # one copy too many: the next gc removes it
            if not is_in_use:
                self._draft.mark_damaged(place_id)
            is_used, problem = reader.add_object(
                place_id, file, root, lambda: self._sources.blocks_of(name), is_in_use=is_in_use
            )
            file.make_durable()
        if is_in_use:
            self._settle(place_id, name, problem, is_used=is_used)
        elif not is_used:
            self._draft.drop_place(place_id)

    def _settle(self, place_id: int, name: str, problem: str, *, is_used: bool) -> None:
        if not is_used:
            self._draft.drop_place(place_id)
            self.unplaced.append(LeftFile(name, problem or "there is nothing in it"))
        elif problem:
            self._draft.mark_damaged(place_id)
            self.damaged.append(LeftFile(name, problem))

    def set_aside_unplaced(self) -> list[LeftFile]:
        """Move what could not be placed to where no gc touches it. Returns the new names."""
        moved = []
        for file in self.unplaced:
            place = f"{self._layout.quarantine.name}/{uuid.uuid4().hex[:8]}-{file.name.rpartition('/')[2]}"
            relocate(self._disk, self._layout.folder / file.name, self._layout.folder / place)
            moved.append(LeftFile(place, file.reason))
        return moved

    def find_garbage(self) -> Callable[[bytes], bool]:
        """What says of a block whether the store's own index knows that nothing needs it.

        Only an index that is whole is believed; with a backup nobody knows what came later.
        """
        present = self._sources.present
        if present is None or not all_are_whole(present):
            return lambda _: False
        return present.knows


def _is_block(multihash: bytes, data: bytes) -> bool:
    try:
        return CID.from_bytes(bytes(CID(1, RAW, multihash))).matches(data)
    except (InvalidCIDError, InvalidDataError):
        return False


def measure_files(folder: Path) -> int:
    """How many bytes a rebuild of the store in a folder has to read, about."""
    return sum(path.lstat().st_size for path in Layout(folder).files.glob("*/*"))
