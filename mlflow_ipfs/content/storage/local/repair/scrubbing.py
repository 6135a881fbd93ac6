"""Reads and hashes everything: finds what rotted without anybody looking.

A changed file shows by its stamp, a rotten sector does not. What is found bad is noted in the
index, so that adding the content again heals it; a damaged object goes to ``quarantine``.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.block_reading import StoredBlock, read_stored_block
from mlflow_ipfs.content.storage.local.index.index_rows import OBJECT
from mlflow_ipfs.content.storage.local.publishing.publication import LocalPublication
from mlflow_ipfs.content.storage.maintenance import ScrubReport
from mlflow_ipfs.content.system.read_ahead import map_ahead
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError, StoreBusyError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.storage.local.gc.whole_files import WholeFiles
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_logger = logging.getLogger(__name__)
_PAGE: Final = 1000
_BATCH: Final = 16  # blocks that a thread gets at once: most of those in packs are small
_ROWS: Final = "SELECT id, multihash, data, offset, length, form FROM block WHERE id > ? AND place"
_Row = tuple[int, bytes, "bytes | None", int, int, int]


@dataclass(slots=True)
class Scrubber:
    """One look at the whole store, place by place; others may publish and collect meanwhile.

    Args:
        context: the store.
        reader: reads a block once more when it is bad, heals it or notes the damage and says what is wrong.
        files: finds objects, hashing each, and heals them.
        progress: told how many bytes were read since it was told last.
        only: the rows of the files to look at; None: all. Blocks inside the index are looked at in any case.
        verify_rows: hash each block of an object by its row, too. A store's own rows are right where the object is; those of
            an index that came from elsewhere need not be.
    """

    context: StoreContext
    reader: BlockReader
    files: WholeFiles
    progress: Callable[[int], None] | None = None
    only: Collection[int] | None = None
    verify_rows: bool = False
    _blocks: int = 0
    _size_bytes: int = 0
    _problems: dict[CID, str] = field(default_factory=dict)
    _healed: dict[CID, None] = field(default_factory=dict)  # in order, each once

    def run(self) -> ScrubReport:
        """Hash every block and every object."""
        with self.context.database.read() as connection:
            places = connection.execute(
                "SELECT id, name, root, size, damaged FROM place"
                " WHERE condemned_at IS NULL OR condemned_at > 0 ORDER BY id"
            ).fetchall()
        for place_id, name, root, size_bytes, is_damaged in places:
            if self.only is not None and place_id not in self.only:
                continue
            is_done = root is not None and self._check_object(root, place_id, size_bytes)
            if not is_done or self.verify_rows:
                problems = len(self._problems)
                self._check_place(place_id, name)
                if is_damaged and len(self._problems) == problems and not self.context.database.read_only:
                    self._move_out(place_id, name)
        for row in self._rows("IS NULL"):
            cid = CID(1, RAW, row[1])
            self._note(cid, row[4], is_sound=cid.matches(row[2] or b""))
        return ScrubReport(self._blocks, self._size_bytes, tuple(self._problems.items()), tuple(self._healed))

    def _check_object(self, root: bytes, place_id: int, size_bytes: int) -> bool:
        """Hash a whole object, with the leaves whose rows are in other objects. False if its nodes are missing."""
        cid = CID(1, self._codec_of(root), root)
        try:
            if self.files.find(cid) is None:
                return False
        except IntegrityError as error:
            if self.files.heal(cid):
                self._healed[cid] = None
            else:
                self._problems[cid] = str(error)
        except (NotFoundError, InvalidDataError):  # the second: the file has one leaf, which is its root
            return False
        if not self.verify_rows:  # else they are counted one by one
            with self.context.database.read() as connection:
                query = "SELECT count(*) FROM block WHERE place = ?"
                self._blocks += connection.execute(query, (place_id,)).fetchone()[0]
            self._count(size_bytes)
        return True

    def _codec_of(self, root: bytes) -> int:
        """The index has no codecs; but the root of a file that is one raw leaf is that leaf."""
        with self.context.database.read() as connection:
            row = connection.execute(
                "SELECT p.kind, b.form FROM block b JOIN place p ON p.id = b.place WHERE b.multihash = ?", (root,)
            ).fetchone()
        return RAW if row == (OBJECT, LeafEncoding.RAW) else DAG_PB

    def _check_place(self, place_id: int, name: str) -> None:
        disk = self.context.disk
        try:
            descriptor = disk.open_to_read(self.context.layout.directory / name)
        except FileNotFoundError:
            descriptor = None
        check = partial(self._check_piece, descriptor)
        try:
            with closing(map_ahead(check, self._rows(f"= {int(place_id)}"), batch=_BATCH)) as checked:
                for size_bytes, cid, is_sound in checked:
                    self._note(cid, size_bytes, is_sound=is_sound)
        finally:
            if descriptor is not None:
                disk.close(descriptor)

    def _move_out(self, place_id: int, name: str) -> None:
        """Let nothing sound depend on a file that was damaged: it is in quarantine, and people tidy up there."""
        disk = self.context.disk
        try:
            descriptor = disk.open_to_read(self.context.layout.directory / name)
        except FileNotFoundError:
            return
        try:
            with LocalPublication(self.context) as publication:
                for row_id, multihash, _, offset, length, form in self._rows(f"= {int(place_id)}"):
                    stored = StoredBlock(row_id, multihash, offset, length, form)
                    cid, block = read_stored_block(disk, descriptor, stored)
                    if cid.matches(block):
                        publication.put(cid, block)
                publication.commit()  # a damaged file counts as absent, so the blocks have a new place now
        except (StoreFullError, StoreBusyError) as error:
            _logger.warning("what is sound in %s stays there for now: %s", name, error)
        finally:
            disk.close(descriptor)

    def _check_piece(self, descriptor: int | None, row: _Row) -> tuple[int, CID, bool]:
        """Hash a block that lies in a file. On any thread."""
        row_id, multihash, _, offset, length, form = row
        if descriptor is None:
            return length, CID(1, RAW, multihash), False
        stored = StoredBlock(row_id, multihash, offset, length, form)
        cid, block = read_stored_block(self.context.disk, descriptor, stored)
        return length, cid, cid.matches(block)

    def _note(self, cid: CID, size_bytes: int, *, is_sound: bool) -> None:
        if not is_sound:
            before = self.context.healing.healed_blocks
            try:
                self.reader.get(cid)  # a gc or a repair may have moved it
            except NotFoundError:
                return
            except IntegrityError as error:
                self._problems[cid] = str(error)
            if self.context.healing.healed_blocks > before:
                self._healed[cid] = None
        self._blocks += 1
        self._count(size_bytes)

    def _count(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self.progress is not None:
            self.progress(size_bytes)

    def _rows(self, which: str) -> Iterator[_Row]:
        last = 0
        while True:
            with self.context.database.read() as connection:
                rows = connection.execute(f"{_ROWS} {which} ORDER BY id LIMIT {_PAGE}", (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from rows
