"""New index while it is built, with scratch tables that only the rebuild needs: codecs and links of nodes.

No other program opens the new index yet, so it is written without syncing. The scratch tables are in a second database,
because the links of a million blocks do not fit into memory.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS, links
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, block_of_leaf, decode_unixfs
from mlflow_ipfs.content.storage.local.index import index_rows, schema
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock, Stamp
    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_CACHE_KIB: Final = 64 << 10
_SCRATCH: Final = (
    # The codec of each block that is neither raw bytes nor a wrapped leaf. The rows of these two have their encoding.
    "CREATE TABLE scratch.codec (multihash BLOB PRIMARY KEY, codec INTEGER, version INTEGER) WITHOUT ROWID",
    "CREATE TABLE scratch.link (parent BLOB, codec INTEGER, child BLOB, child_codec INTEGER)",
    # Blocks that have a row although their bytes are damaged.
    "CREATE TABLE scratch.bad (multihash BLOB PRIMARY KEY) WITHOUT ROWID",
)


class BlockKind(NamedTuple):
    """Kind of a block, as far as its bytes show it: codec and version of its CID, and its links."""

    multihash: bytes
    codec: int
    version: int
    links: Sequence[CID]


class NewIndex:
    """New index of a store.

    Args:
        layout: the store.
        disk: reads blocks back.
        path: the new database.
        scratch_path: the database of the scratch tables.
        store_id: the store's id.

    Attributes:
        connection: the connection to the new database. Its only transaction is open until ``finish``.
    """

    def __init__(self, layout: Layout, disk: Disk, path: Path, scratch_path: Path, store_id: str) -> None:
        self._layout = layout
        self._disk = disk
        self.connection = sqlite3.connect(path, isolation_level=None)
        execute = self.connection.execute
        execute("ATTACH ? AS scratch", (str(scratch_path),))
        for name in ("main", "scratch"):
            execute(f"PRAGMA {name}.journal_mode = MEMORY")
            execute(f"PRAGMA {name}.synchronous = OFF")
            execute(f"PRAGMA {name}.cache_size = -{_CACHE_KIB}")
        execute("BEGIN")
        schema.create_tables(self.connection, store_id)
        for statement in _SCRATCH:
            execute(statement)

    def finish(self) -> None:
        """Commit the transaction. Nothing can be added afterwards."""
        self.connection.execute("COMMIT")
        self.connection.execute("DETACH scratch")
        self.connection.execute("PRAGMA journal_mode = WAL")  # stored in the file, for the programs that open it later

    def write_copy(self, path: Path) -> None:
        """Write the finished index to a new file, durably."""
        descriptor = self._disk.copy_database(self.connection, path)
        try:
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def close(self) -> None:
        """Close the databases."""
        self.connection.close()

    def add_place(self, kind: str, name: str, stamp: Stamp) -> int:
        """Add a file. Return the id of its row."""
        return index_rows.insert_place(self.connection, kind, name, stamp)

    def drop_place(self, place_id: int) -> None:
        """Remove the row of a file without a usable block."""
        self.connection.execute("DELETE FROM place WHERE id = ?", (place_id,))

    def mark_damaged(self, place_id: int) -> None:
        """Record that a file is damaged: its blocks count as absent for dedupe."""
        self.connection.execute("UPDATE place SET damaged = 1 WHERE id = ?", (place_id,))

    def has_sound_object(self, root: bytes) -> bool:
        """Return whether the index has an undamaged file of a root."""
        place = index_rows.find_object(self.connection, root)
        return place is not None and not place.is_damaged

    def name_object(self, place_id: int, root: bytes, *, is_damaged: bool) -> None:
        """Record the root of a file. An undamaged file replaces a damaged one."""
        if is_damaged:
            self.mark_damaged(place_id)
            if index_rows.find_object(self.connection, root) is not None:
                return
        index_rows.retire_object(self.connection, root)
        self.connection.execute("UPDATE place SET root = ? WHERE id = ?", (root, place_id))

    def add_blocks(self, place_id: int | None, rows: Iterable[NewBlock], kinds: Iterable[BlockKind]) -> int:
        """Add verified blocks. A block in another undamaged file keeps its row. Return how many blocks are new."""
        count = index_rows.insert_blocks(self.connection, place_id, rows)
        self._add_kinds(kinds)
        return count

    def add_leaves(self, place_id: int, rows: Iterable[NewBlock]) -> None:
        """Add verified leaves of an object. An undamaged object also takes over leaves that have a row in a pack."""
        is_damaged = self.connection.execute("SELECT damaged FROM place WHERE id = ?", (place_id,)).fetchone()[0]
        insert = index_rows.insert_blocks if is_damaged else index_rows.insert_leaves
        insert(self.connection, place_id, rows)

    def add_bad(self, place_id: int, rows: Sequence[NewBlock]) -> None:
        """Add blocks with damaged bytes, unless another file has them. Reading them raises an ``IntegrityError``."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO block (multihash, data, offset, length, form, place)"  # noqa: S608 - a number
            f" VALUES (?, ?, ?, ?, ?, {int(place_id)})",
            rows,
        )
        self.connection.executemany(
            "INSERT OR IGNORE INTO scratch.bad (multihash) VALUES (?)", [(row.multihash,) for row in rows]
        )

    def add_inline(self, multihash: bytes, data: bytes, codec_cid: CID | None = None) -> int:
        """Add a verified block inside the index. Return how many are new, 0 or 1."""
        row = index_rows.NewBlock(multihash, data, 0, len(data), int(LeafEncoding.RAW))
        return self.add_blocks(None, [row], [describe(multihash, data, codec_cid)])

    def _add_kinds(self, kinds: Iterable[BlockKind]) -> None:
        execute = self.connection.execute
        for kind in kinds:
            if kind.codec == RAW:
                continue
            is_new = execute(
                "INSERT OR IGNORE INTO scratch.codec (multihash, codec, version) VALUES (?, ?, ?)", kind[:3]
            ).rowcount
            if is_new and kind.links:
                self.connection.executemany(
                    "INSERT INTO scratch.link (parent, codec, child, child_codec) VALUES (?, ?, ?, ?)",
                    [
                        (kind.multihash, kind.codec, link.multihash, link.codec)
                        for link in kind.links
                        if link.identity_data is None
                    ],
                )

    def has(self, multihash: bytes) -> bool:
        """Return whether the index has a block."""
        return index_rows.is_known(self.connection, multihash)

    def find(self, multihash: bytes) -> bytes | None:
        """Return a block, verified; None if it is missing or damaged."""
        row = index_rows.find_block(self.connection, multihash)
        if row is None:
            return None
        block = row.data
        if row.place_name is not None:
            try:
                piece = self._disk.read_piece(self._layout.directory / row.place_name, row.offset, row.length)
            except OSError:  # a bad sector
                return None
            block = block_of_leaf(piece, row.form)
        return block if block is not None and CID(1, RAW, multihash).matches(block) else None


def describe(multihash: bytes, block: bytes, cid: CID | None = None) -> BlockKind:
    """Return the kind of a block.

    A block without a known CID is treated as UnixFS if it decodes as UnixFS. A block that decodes as UnixFS with links
    is treated as UnixFS even if its CID is raw: gc writes a raw CID when it moves garbage to a pack (``moving.py``).

    Args:
        multihash: the multihash of the block.
        block: its bytes.
        cid: its CID, if it is known.
    """
    if cid is not None and cid.codec in CODECS_WITH_LINKS:
        try:
            return BlockKind(multihash, cid.codec, cid.version, links(cid, block))
        except InvalidDataError:  # the bytes are not a node of this codec
            return BlockKind(multihash, cid.codec, cid.version, ())
    try:
        node = decode_node(block)
        decode_unixfs(node)
    except InvalidDataError:
        return BlockKind(multihash, RAW if cid is None else cid.codec, 1, ())
    found = [link.cid for link in node.links]
    if cid is not None and not found:
        return BlockKind(multihash, cid.codec, cid.version, ())
    version = 0 if found and all(link.version == 0 for link in found) else 1
    return BlockKind(multihash, DAG_PB, version, found)
