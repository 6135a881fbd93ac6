"""Scrub of a store: it reads and hashes all content to find silent corruption.

The stamp of a file reveals that a program changed the file, but not that a sector decayed. Damage is recorded in the
index, so that adding the content again heals it. A damaged object is moved to ``quarantine``.
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
_BATCH: Final = 16  # blocks that a thread takes at once: most blocks in packs are small
_ROWS: Final = "SELECT id, multihash, data, offset, length, form FROM block WHERE id > ? AND place"
_Row = tuple[int, bytes, "bytes | None", int, int, int]


@dataclass(slots=True)
class Scrubber:
    """One scrub of a store, file by file. Publishers and gc may run meanwhile.

    Args:
        context: the store.
        reader: reads a damaged block again. It heals the block, or records the damage and raises an error that says
            what is wrong.
        files: finds objects, hashing each, and heals them.
        progress: called with the number of bytes read since its last call.
        only: the rows of the files to check; None to check all files. Blocks inside the index are checked in any case.
        verify_rows: also hash each block of an object at the offset in its row. In an open store these rows are right
            if the object is; in an index from elsewhere they may be wrong.
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
        """Hash every block and every object. Return the damage."""
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
                self._check_blocks(place_id, name)
                if is_damaged and len(self._problems) == problems and not self.context.database.read_only:
                    self._copy_out(place_id, name)
        for row in self._rows("IS NULL"):
            cid = CID(1, RAW, row[1])
            self._record(cid, row[4], is_sound=cid.matches(row[2] or b""))
        return ScrubReport(self._blocks, self._size_bytes, tuple(self._problems.items()), tuple(self._healed))

    def _check_object(self, root: bytes, place_id: int, size_bytes: int) -> bool:
        """Hash a whole object, including leaves that have rows in other files. Return False if nodes are missing."""
        cid = CID(1, self._codec_of(root), root)
        try:
            if self.files.find(cid) is None:
                return False
        except IntegrityError as error:
            if self.files.heal(cid):
                self._healed[cid] = None
            else:
                self._problems[cid] = str(error)
        except (NotFoundError, InvalidDataError):  # InvalidDataError: the root is not a node but the file's only leaf
            return False
        if not self.verify_rows:  # else `_check_blocks` counts them
            with self.context.database.read() as connection:
                query = "SELECT count(*) FROM block WHERE place = ?"
                self._blocks += connection.execute(query, (place_id,)).fetchone()[0]
            self._count(size_bytes)
        return True

    def _codec_of(self, root: bytes) -> int:
        """Return the codec of a root: raw if the index has it as a leaf in an object, else dag-pb.

        The index does not store codecs.
        """
        with self.context.database.read() as connection:
            row = connection.execute(
                "SELECT p.kind, b.form FROM block b JOIN place p ON p.id = b.place WHERE b.multihash = ?", (root,)
            ).fetchone()
        return RAW if row == (OBJECT, LeafEncoding.RAW) else DAG_PB

    def _check_blocks(self, place_id: int, name: str) -> None:
        """Hash every block that has a row in a file."""
        disk = self.context.disk
        try:
            descriptor = disk.open_to_read(self.context.layout.directory / name)
        except FileNotFoundError:
            descriptor = None
        check = partial(self._check_block, descriptor)
        try:
            with closing(map_ahead(check, self._rows(f"= {int(place_id)}"), batch=_BATCH)) as checked:
                for size_bytes, cid, is_sound in checked:
                    self._record(cid, size_bytes, is_sound=is_sound)
        finally:
            if descriptor is not None:
                disk.close(descriptor)

    def _copy_out(self, place_id: int, name: str) -> None:
        """Publish the undamaged blocks of a damaged file again. Users may delete the file, because it is in quarantine."""
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
                publication.commit()  # a damaged file counts as absent for dedupe, so the blocks were written again
        except (StoreFullError, StoreBusyError) as error:
            _logger.warning(
                "the undamaged blocks of %s could not be copied to another file (%s): keep this file, and run "
                "`mlflow-ipfs scrub` again",
                self.context.layout.directory / name,
                error,
            )
        finally:
            disk.close(descriptor)

    def _check_block(self, descriptor: int | None, row: _Row) -> tuple[int, CID, bool]:
        """Hash a block in a file. Return its length, its CID and whether it is sound. Safe in several threads."""
        row_id, multihash, _, offset, length, form = row
        if descriptor is None:
            return length, CID(1, RAW, multihash), False
        stored = StoredBlock(row_id, multihash, offset, length, form)
        cid, block = read_stored_block(self.context.disk, descriptor, stored)
        return length, cid, cid.matches(block)

    def _record(self, cid: CID, size_bytes: int, *, is_sound: bool) -> None:
        """Count a block. Try to heal a damaged one, and record the result."""
        if not is_sound:
            before = self.context.healing.healed_blocks
            try:
                self.reader.get(cid)  # gc or a repair may have moved it to another file
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

    def _rows(self, condition: str) -> Iterator[_Row]:
        last = 0
        while True:
            with self.context.database.read() as connection:
                rows = connection.execute(f"{_ROWS} {condition} ORDER BY id LIMIT {_PAGE}", (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from rows
