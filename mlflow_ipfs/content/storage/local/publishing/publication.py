"""Publications into a local store: drafts first, then durable files, then rows, then names.

A committed row implies durable bytes. Bytes without a row are garbage and are never read. Until the publication ends,
gc does not delete the blocks that it found in the store: see ``files/open_publications.py``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local.files.drafts import (
    Draft,
    Syncer,
    drop_draft,
    move_into_place,
    object_name,
    pack_name,
)
from mlflow_ipfs.content.storage.local.files.open_publications import OpenPublication
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.index.cache_rows import holds_blocks
from mlflow_ipfs.content.storage.local.index.error_translation import translate_disk_errors
from mlflow_ipfs.content.storage.local.publishing.entries import check_expected, put_entries, put_frozen
from mlflow_ipfs.content.storage.local.publishing.names import drop_pin, put_notes, put_outbox, put_pin
from mlflow_ipfs.content.storage.local.publishing.object_writer import ObjectWriter, find_new_leaves, move_leaves
from mlflow_ipfs.content.storage.local.publishing.promotion import promote
from mlflow_ipfs.content.storage.local.publishing.row_writer import NewFile, RowWriter, batches, find_intact_object
from mlflow_ipfs.content.storage.local.publishing.small_blocks import SmallBlocks
from mlflow_ipfs.content.storage.validation import check_block_size
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError, StoreFormatError

if TYPE_CHECKING:
    import sqlite3
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.base import FileWriter
    from mlflow_ipfs.content.storage.local.files.packs import PackWriter
    from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock, Stamp
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext
    from mlflow_ipfs.content.system.locking import LockFile

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _UnsyncedFile:
    """A complete file whose bytes are being made durable."""

    draft: Path
    stamp: Future[Stamp]
    kind: str
    root: bytes | None
    rows: list[NewBlock]


class LocalPublication:
    """One publication into a local store. See ``Publication``.

    Args:
        context: the store.
        hold_existing: until the publication ends, no gc deletes anything, not even files marked deletable before.
    """

    _class = index_rows.OWNED

    def __init__(self, context: StoreContext, *, hold_existing: bool = False) -> None:
        context.database.check_writable()
        self._context = context
        self._pid = os.getpid()
        self._publish_lock: LockFile | None = context.publish_lock.acquire_shared()
        try:
            with translate_disk_errors(context.layout.directory):
                self._registration: OpenPublication | None = OpenPublication(
                    context.layout, context.disk, context.database, relies_on_deletable=hold_existing
                )
        except BaseException:
            self._publish_lock.release()
            raise
        self._seen: set[bytes] = set()
        self._roots: set[bytes] = set()
        self._new_bytes = 0
        self._small = SmallBlocks(context.database, context.disk, context.session.draft, self._take_pack, self._class)
        self._writers: list[ObjectWriter] = []
        self._syncer = Syncer(context.disk)
        self._unsynced: list[_UnsyncedFile] = []
        self._files: list[NewFile] = []  # durable and at their final paths, but not yet in the index
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            return  # a forked child must not end the publication of its parent
        if self._is_open:
            self._discard()
        registration, lock = self._registration, self._publish_lock
        self._registration = self._publish_lock = None
        if registration is not None:
            registration.end()
        if lock is not None:
            lock.release()

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block whose CID the caller has just computed from ``data``, or verified."""
        self._check_open()
        check_block_size(cid, data)
        if cid.identity_data is None and cid.multihash not in self._seen:
            self._seen.add(cid.multihash)
            try:
                self._small.put(cid, bytes(data))
            except OSError:
                # Not around `put`: entering the context for each of millions of blocks would double the time.
                with translate_disk_errors(self._context.layout.directory):
                    raise

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Start a file that is stored contiguously."""
        del read_back  # a draft can always be read
        self._check_open()
        context = self._context
        with translate_disk_errors(context.layout.directory):
            writer = ObjectWriter(context.disk, context.session.draft(), context.layout.directory, self._take_object)
        self._writers.append(writer)
        return writer

    def has(self, cid: CID) -> bool:
        """Return whether the block is in this publication, or stored without known damage and not marked deletable."""
        self._check_open()
        if cid.identity_data is not None or cid.multihash in self._seen:
            return True
        with self._context.database.read() as connection:
            return bool(index_rows.known_among(connection, [cid.multihash], self._class))

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then change the names. Return how many bytes were new."""
        self._check_open()
        changes = changes or Changes()
        with self._context.database.read() as connection:
            self._check_roots(connection, changes)
        try:
            with translate_disk_errors(self._context.layout.directory):
                inline = self._small.finish()
                self._move_files()
                redundant = self._write_rows(inline, changes)
        except BaseException as error:
            self._discard(outcome_is_known=not isinstance(error, StoreFormatError))
            raise
        self._end()
        for file in redundant:
            self._context.disk.remove(self._context.layout.directory / file.name)
            self._new_bytes -= file.stamp.size_bytes if file.root is not None else 0
        return self._new_bytes + sum(block.length for block in inline)

    def _check_open(self) -> None:
        if not self._is_open or self._pid != os.getpid():
            msg = "this publication has ended"
            raise ValueError(msg)

    def _check_roots(self, connection: sqlite3.Connection, changes: Changes) -> None:
        """Raise if a CID that gets a name is neither in the store nor in this publication."""
        roots = changes.named_cids()
        wanted = {cid.multihash: cid for cid in roots if cid.identity_data is None and cid.multihash not in self._seen}
        missing = wanted.keys() - index_rows.all_known_among(connection, wanted)
        if missing:
            cid = wanted[min(missing)]
            msg = f"{cid} is not in the store, so no name can refer to it, and nothing was stored: add it first"
            raise NotFoundError(msg)

    def _take_pack(self, pack: PackWriter) -> None:
        """Start to sync a complete pack."""
        self._new_bytes += pack.block_bytes
        self._start_sync(pack.finish(), index_rows.PACK, None, pack.rows)

    def _take_object(self, root: bytes, rows: list[NewBlock], size_bytes: int, draft: Draft) -> None:
        """Keep a finished file as an object, keep only its new leaves as blocks, or drop it if it is known already."""
        is_known = root in self._roots or self._has_object(root, rows, size_bytes)
        self._roots.add(root)
        self._seen.update(row.multihash for row in rows)
        if is_known:
            _logger.debug("%s: a file of %d bytes is stored already", root.hex(), size_bytes)
            drop_draft(self._context.disk, draft)
            return
        with self._context.database.read() as connection:
            new = find_new_leaves(connection, rows, size_bytes) if self._class == index_rows.OWNED else None
        if new is not None:
            _logger.debug("%s: storing only the %d new of %d leaves", root.hex(), len(new), len(rows))
            move_leaves(self._context.disk, draft, new, self._small.put)
            drop_draft(self._context.disk, draft)
            return
        _logger.debug("%s: storing a file of %d bytes as one object", root.hex(), size_bytes)
        self._new_bytes += size_bytes
        self._start_sync(draft, index_rows.OBJECT, root, rows)

    def _has_object(self, root: bytes, rows: list[NewBlock], size_bytes: int) -> bool:
        """Return whether the store has the object of a root, intact, and every leaf."""
        context = self._context
        with context.database.read() as connection:
            place_id = find_intact_object(
                connection, context.layout, context.disk, root, size_bytes=size_bytes, class_=self._class
            )
            wanted = {row.multihash for row in rows}
            return place_id is not None and len(index_rows.known_among(connection, wanted, self._class)) == len(wanted)

    def _start_sync(self, draft: Draft, kind: str, root: bytes | None, rows: list[NewBlock]) -> None:
        """Make a draft durable in the background."""
        self._unsynced.append(_UnsyncedFile(draft.path, self._syncer.start(draft), kind, root, rows))

    def _move_files(self) -> None:
        """Move every file to its final path, once its bytes are durable."""
        directories: list[Path] = [self._context.layout.files] if self._unsynced else []
        while self._unsynced:
            unsynced = self._unsynced[0]
            name = object_name(unsynced.root) if unsynced.root is not None else pack_name()
            file = NewFile(unsynced.kind, name, unsynced.root, unsynced.rows, unsynced.stamp.result())
            self._files.append(file)
            directories.append(move_into_place(self._context.layout, self._context.disk, unsynced.draft, name))
            self._unsynced.pop(0)
        self._syncer.sync_directories(directories)
        self._syncer.close()

    def _write_rows(self, inline: list[NewBlock], changes: Changes) -> list[NewFile]:
        """Write the rows of files, blocks and names. Return the files that the store does not need."""
        database, writer = self._context.database, RowWriter(self._context.layout, self._context.disk, self._class)
        *earlier, last = batches(self._files)
        for batch in earlier:
            with database.write() as connection:
                writer.write(connection, batch)
        with database.write() as connection:
            writer.write(connection, last)
            writer.drop_unused_packs(connection, self._files)
            index_rows.insert_blocks(connection, None, inline)
            must_promote = changes != Changes() and holds_blocks(connection)
            self._write_names(connection, changes, roll_back=must_promote)
        if must_promote:  # the store now has all that the names need, but perhaps only in the cache
            with promote(self._context, list(changes.named_cids())) as connection:
                self._write_names(connection, changes)
        return writer.redundant

    def _write_names(self, connection: sqlite3.Connection, changes: Changes, *, roll_back: bool = False) -> None:
        """Change the rows of the names. With ``roll_back``, only raise the errors that this would cause."""
        self._check_roots(connection, changes)  # again, because cached blocks may have been evicted
        connection.execute("SAVEPOINT names")
        for pin in changes.unpins:
            drop_pin(connection, pin.cid, pin.owner)
        for pin in changes.pins:
            put_pin(connection, pin)
        put_outbox(connection, changes.outbox)
        for frozen in changes.frozen:
            put_frozen(connection, frozen)
        check_expected(connection, changes.expected)
        put_entries(connection, changes.entries)
        put_notes(connection, changes.notes)
        if roll_back:
            connection.execute("ROLLBACK TO names")
        connection.execute("RELEASE names")

    def _discard(self, *, outcome_is_known: bool = True) -> None:
        """Remove every file of this publication that has no row, then end the publication."""
        disk = self._context.disk
        for writer in self._writers:
            writer.discard()
        self._small.discard()
        self._syncer.close()
        for unsynced in self._unsynced:
            disk.remove(unsynced.draft)
        if outcome_is_known and self._files:
            self._remove_files()
        self._end()

    def _remove_files(self) -> None:
        """Remove files at their final paths that have no row. Earlier batches may have written rows for some files."""
        try:
            with self._context.database.read() as connection:
                referenced = index_rows.places_among(connection, [file.name for file in self._files])
        except MlflowIpfsError:
            return  # gc removes them later
        for file in self._files:
            if file.name not in referenced:
                self._context.disk.remove(self._context.layout.directory / file.name)

    def _end(self) -> None:
        self._is_open = False
        self._writers.clear()
        self._seen.clear()
