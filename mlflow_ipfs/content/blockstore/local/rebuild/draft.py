"""The new index in the making, and notes that only the making needs: codecs and links of nodes.

Nobody else knows of it yet, so it is written without syncing. The notes lie in a second database:
a million blocks have a million links, which are not kept in memory.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blockstore.interface import LeafForm
from mlflow_ipfs.content.blockstore.local import index, schema
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs import CODECS_WITH_LINKS, links
from mlflow_ipfs.content.dagpb import decode_node
from mlflow_ipfs.content.unixfs import block_of_leaf, decode_unixfs
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.blockstore.local.index import NewBlock, Stamp
    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_CACHE_KIB: Final = 64 << 10
_NOTES: Final = (
    # What a block is taken for, where that is not raw bytes, or a wrapped leaf that its row tells of.
    "CREATE TABLE notes.codec (multihash BLOB PRIMARY KEY, codec INTEGER, version INTEGER) WITHOUT ROWID",
    "CREATE TABLE notes.link (parent BLOB, codec INTEGER, child BLOB, child_codec INTEGER)",
    # Inline blocks that only older copies have: used if something turns out to need them.
    "CREATE TABLE notes.spare (multihash BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID",
    # Blocks with a row although their bytes are not what they should be.
    "CREATE TABLE notes.bad (multihash BLOB PRIMARY KEY) WITHOUT ROWID",
)


class Note(NamedTuple):
    """What a block is, as far as its bytes tell: codec and version of its CID, and what it links to."""

    multihash: bytes
    codec: int
    version: int
    links: Sequence[CID]


class IndexDraft:
    """A new index.

    Args:
        layout: the store that it is for.
        disk: reads blocks back.
        path: the new database.
        notes_path: the database with the notes.
        store_id: the store's id.

    Attributes:
        connection: the new database; one transaction, open until ``finish``.
    """

    def __init__(self, layout: Layout, disk: Disk, path: Path, notes_path: Path, store_id: str) -> None:
        self._layout = layout
        self._disk = disk
        self.connection = sqlite3.connect(path, isolation_level=None)
        execute = self.connection.execute
        execute("ATTACH ? AS notes", (str(notes_path),))
        for name in ("main", "notes"):
            execute(f"PRAGMA {name}.journal_mode = MEMORY")
            execute(f"PRAGMA {name}.synchronous = OFF")
            execute(f"PRAGMA {name}.cache_size = -{_CACHE_KIB}")
        execute("BEGIN")
        schema.create_tables(self.connection, store_id)
        for statement in _NOTES:
            execute(statement)

    def finish(self) -> None:
        """Nothing is added any more."""
        self.connection.execute("COMMIT")
        self.connection.execute("DETACH notes")
        self.connection.execute(
            "PRAGMA journal_mode = WAL"
        )  # it stands in the file, which is how programs will open it

    def write_copy(self, path: Path) -> None:
        """Write the finished index to a new file, durably."""
        descriptor = self._disk.copy_database(self.connection, path)
        try:
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def close(self) -> None:
        """Let go of the files."""
        self.connection.close()

    def add_place(self, kind: str, name: str, stamp: Stamp) -> int:
        """Add a file. Returns its id."""
        return index.insert_place(self.connection, kind, name, stamp)

    def drop_place(self, place_id: int) -> None:
        """Forget a file in which nothing was found."""
        self.connection.execute("DELETE FROM place WHERE id = ?", (place_id,))

    def mark_damaged(self, place_id: int) -> None:
        """Let a file's blocks count as absent for dedupe."""
        self.connection.execute("UPDATE place SET damaged = 1 WHERE id = ?", (place_id,))

    def has_sound_object(self, root: bytes) -> bool:
        """Whether an undamaged file of that root is in the index already."""
        place = index.find_object(self.connection, root)
        return place is not None and not place.is_damaged

    def name_object(self, place_id: int, root: bytes, *, is_damaged: bool) -> None:
        """Note of which root a file is. A sound file takes the place of a damaged one."""
        if is_damaged:
            self.mark_damaged(place_id)
            if index.find_object(self.connection, root) is not None:
                return
        index.retire_object(self.connection, root)
        self.connection.execute("UPDATE place SET root = ? WHERE id = ?", (root, place_id))

    def add_blocks(self, place_id: int | None, rows: Iterable[NewBlock], notes: Iterable[Note]) -> int:
        """Add blocks that were verified. One that lies in another sound file stays there."""
        count = index.insert_blocks(self.connection, place_id, rows)
        self._add_notes(notes)
        return count

    def add_leaves(self, place_id: int, rows: Iterable[NewBlock]) -> None:
        """Add verified leaves of an object. A sound object takes them from files that are none, a damaged one does not."""
        is_damaged = self.connection.execute("SELECT damaged FROM place WHERE id = ?", (place_id,)).fetchone()[0]
        insert = index.insert_blocks if is_damaged else index.insert_leaves
        insert(self.connection, place_id, rows)

    def add_bad(self, place_id: int, rows: Sequence[NewBlock]) -> None:
        """Add blocks whose bytes are bad, unless they are known from elsewhere: whoever reads one is told so."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO block (multihash, data, offset, length, form, place)"  # noqa: S608 - a number
            f" VALUES (?, ?, ?, ?, ?, {int(place_id)})",
            rows,
        )
        self.connection.executemany(
            "INSERT OR IGNORE INTO notes.bad (multihash) VALUES (?)", [(row.multihash,) for row in rows]
        )

    def add_inline(self, multihash: bytes, data: bytes, codec_cid: CID | None = None) -> int:
        """Add a verified block inside the index. Returns whether it is new."""
        row = index.NewBlock(multihash, data, 0, len(data), int(LeafForm.RAW))
        return self.add_blocks(None, [row], [describe(multihash, data, codec_cid)])

    def add_spare(self, multihash: bytes, data: bytes) -> None:
        """Remember a verified block that may be needed."""
        self.connection.execute("INSERT OR IGNORE INTO notes.spare (multihash, data) VALUES (?, ?)", (multihash, data))

    def _add_notes(self, notes: Iterable[Note]) -> None:
        execute = self.connection.execute
        for note in notes:
            if note.codec == RAW:
                continue
            is_new = execute(
                "INSERT OR IGNORE INTO notes.codec (multihash, codec, version) VALUES (?, ?, ?)", note[:3]
            ).rowcount
            if is_new and note.links:
                self.connection.executemany(
                    "INSERT INTO notes.link (parent, codec, child, child_codec) VALUES (?, ?, ?, ?)",
                    [
                        (note.multihash, note.codec, link.multihash, link.codec)
                        for link in note.links
                        if link.identity_data is None
                    ],
                )

    def has(self, multihash: bytes) -> bool:
        """Whether a block is there, or can be taken from the spare ones; those are then taken."""
        return index.is_known(self.connection, multihash) or self._take_spare(multihash) is not None

    def find(self, multihash: bytes) -> bytes | None:
        """A block, verified; None if it is nowhere, or bad."""
        row = index.find_block(self.connection, multihash)
        if row is None:
            return self._take_spare(multihash)
        block = row.data
        if row.place_name is not None:
            try:
                piece = self._disk.read_piece(self._layout.folder / row.place_name, row.offset, row.length)
            except OSError:  # a bad sector
                return None
            block = block_of_leaf(piece, row.form)
        return block if block is not None and CID(1, RAW, multihash).matches(block) else None

    def _take_spare(self, multihash: bytes) -> bytes | None:
        row = self.connection.execute("SELECT data FROM notes.spare WHERE multihash = ?", (multihash,)).fetchone()
        if row is None:
            return None
        self.add_inline(multihash, row[0])
        return bytes(row[0])


def describe(multihash: bytes, block: bytes, cid: CID | None = None) -> Note:
    """Say what a block is.

    Args:
        multihash: the block's.
        block: its bytes.
        cid: its CID, if that is known; else a block that reads as UnixFS is taken for that. One with links is taken
            for UnixFS even if its CID says raw: a gc that moves garbage writes so (``moving.py``).
    """
    if cid is not None and cid.codec in CODECS_WITH_LINKS:
        try:
            return Note(multihash, cid.codec, cid.version, links(cid, block))
        except InvalidDataError:  # bytes that only claim to be a node
            return Note(multihash, cid.codec, cid.version, ())
    try:
        node = decode_node(block)
        decode_unixfs(node)
    except InvalidDataError:
        return Note(multihash, RAW if cid is None else cid.codec, 1, ())
    found = [link.cid for link in node.links]
    if cid is not None and not found:
        return Note(multihash, cid.codec, cid.version, ())
    version = 0 if found and all(link.version == 0 for link in found) else 1
    return Note(multihash, DAG_PB, version, found)
