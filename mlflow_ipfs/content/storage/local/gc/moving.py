"""Moving blocks into new packs: needed blocks out of files that are mostly garbage, and garbage out of the index.

Inline blocks that no name needs are moved because only files can be marked deletable. An open publication may rely on
such a block, so the block must stay readable until the pack is tombstoned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.storage.local.files.block_reading import StoredBlock, read_stored_block
from mlflow_ipfs.content.storage.local.files.drafts import Syncer, move_into_place, pack_name
from mlflow_ipfs.content.storage.local.files.packs import PackWriter
from mlflow_ipfs.content.storage.local.gc.garbage import Place
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext
    from mlflow_ipfs.content.storage.local.reading.marks import Marker

_ROWS: Final = 5_000
_Item = tuple[int, CID, bytes]  # the row's id, the CID, the block


class Mover:
    """A mover of blocks in one store. The caller must hold ``gc.lock``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def move_inline(self, ids: Sequence[int]) -> list[Place]:
        """Move inline blocks into packs. Return the new packs.

        Raises:
            StoreFullError: the disk is full; blocks that were not moved yet stay inline.
        """
        return self._move(self._read_inline(ids), "place IS NULL")

    def empty_file(self, place: Place, marks: Marker) -> bool:
        """Move the needed blocks out of a pack or an object. Return whether all of them could be moved.

        Raises:
            StoreFullError: the disk is full; blocks that were not moved yet stay where they are.
        """
        damaged: list[CID] = []
        self._move(self._read_needed(place, marks, damaged), f"place = {int(place.id)}")
        return not damaged

    def _read_inline(self, ids: Sequence[int]) -> Iterator[_Item]:
        """Yield inline blocks by the ids of their rows."""
        for start in range(0, len(ids), _ROWS):
            with self._context.database.read() as connection:
                rows = [
                    connection.execute(
                        "SELECT id, multihash, data FROM block WHERE id = ? AND data IS NOT NULL", (block_id,)
                    ).fetchone()
                    for block_id in ids[start : start + _ROWS]
                ]
            # The index records no codecs. The links of these blocks are never followed, so any codec will do.
            yield from ((row[0], CID(1, RAW, row[1]), row[2]) for row in rows if row is not None)

    def _read_needed(self, place: Place, marks: Marker, damaged: list[CID]) -> Iterator[_Item]:
        """Yield the needed blocks of a file, and append the CIDs of damaged ones to ``damaged``."""
        with self._context.database.read() as connection:
            rows = connection.execute(
                "SELECT id, multihash, offset, length, form FROM block WHERE place = ? ORDER BY offset", (place.id,)
            ).fetchall()
        disk, path = self._context.disk, self._context.layout.directory / place.name
        try:
            descriptor = disk.open_to_read(path)
        except FileNotFoundError:
            damaged += [CID(1, RAW, row[1]) for row in rows[:1]]  # the file is missing, so nothing can be moved
            return
        try:
            for stored in (StoredBlock(*row) for row in rows if row[0] in marks):
                cid, block = read_stored_block(disk, descriptor, stored)
                if cid.matches(block):
                    yield stored.id, cid, block
                else:
                    damaged.append(cid)  # the block stays in this file, where `verify` finds it
        finally:
            disk.close(descriptor)

    def _move(self, items: Iterable[_Item], where: str) -> list[Place]:
        """Write blocks into new packs, and update the rows for which the condition ``where`` still holds."""
        context = self._context
        moved: list[Place] = []
        with translate_disk_errors(context.layout.directory):
            pack: PackWriter | None = None
            ids: list[int] = []
            for block_id, cid, block in items:
                if pack is None:
                    pack, ids = PackWriter(context.disk, context.session.draft()), []
                try:
                    pack.append(cid, block)
                except BaseException:
                    pack.discard()
                    raise
                ids.append(block_id)
                if pack.is_sealed:
                    moved.append(self._finish(pack, ids, where))
                    pack = None
            if pack is not None:
                moved.append(self._finish(pack, ids, where))
        return moved

    def _finish(self, pack: PackWriter, ids: list[int], where: str) -> Place:
        """Make a pack durable, then let the rows of its blocks refer to it."""
        context, name, syncer = self._context, pack_name(), Syncer(self._context.disk)
        try:
            draft = pack.finish()
        except BaseException:
            pack.discard()
            raise
        try:
            stamp = syncer.start(draft).result()
            syncer.sync_directories(
                [context.layout.files, move_into_place(context.layout, context.disk, draft.path, name)]
            )
        except BaseException:
            context.disk.remove(draft.path)
            raise
        finally:
            syncer.close()
        place_id = 0
        for start in range(0, len(ids), _ROWS):
            with context.database.write() as connection:
                if not place_id:
                    place_id = index_rows.insert_place(connection, index_rows.PACK, name, stamp)
                rows = zip(ids[start : start + _ROWS], pack.rows[start : start + _ROWS], strict=True)
                connection.executemany(
                    "UPDATE block SET place = ?, data = NULL, offset = ?, length = ?, form = ?"  # noqa: S608 - two fixed texts
                    f" WHERE id = ? AND multihash = ? AND {where}",
                    [(place_id, row.offset, row.length, row.form, block_id, row.multihash) for block_id, row in rows],
                )
        return Place(place_id, name, stamp.size_bytes, None)
