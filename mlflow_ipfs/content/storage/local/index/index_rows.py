"""Rows of the tables ``place`` and ``block``: the files of a store, and where each block is stored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mlflow_ipfs.content.cid import DAG_PB, RAW
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterable, Iterator

    from mlflow_ipfs.content.cid import CID

VALUES: Final = "(??)"
MAX_VALUES: Final = 400  # for each statement, which may contain them twice; the oldest SQLite supported allows 999

OBJECT: Final = "object"
PACK: Final = "pack"
OWNED: Final = "owned"
CACHE: Final = "cache"

# `condemned_at` is NULL while a place is in use. A positive number means deletable: gc found that nothing needs the
# place. A deletable place can be read, but counts as absent for dedupe. A negative number means tombstoned: gc is
# deleting the place, and queries treat it as absent. A place of class `cache` may be evicted at any time, so no name
# may rely on it.
_PRESENT: Final = "(p.condemned_at IS NULL OR p.condemned_at > 0)"
_SOUND: Final = "(p.condemned_at IS NULL AND coalesce(p.damaged, 0) = 0)"
_IN_USE: Final = f"({_SOUND} AND coalesce(p.class, 'owned') = 'owned')"
_READABLE: Final = f"({_PRESENT} AND coalesce(p.damaged, 0) = 0)"
_CACHE_USED: Final = "CASE p.class WHEN 'cache' THEN p.last_used END"
_ITS_PLACE: Final = "place p WHERE p.id = block.place"
_BLOCK: Final = "block b LEFT JOIN place p ON p.id = b.place"
_BLOCK_ROWS: Final = (
    f"SELECT b.multihash, b.data, p.name, b.place, b.offset, b.length, b.form, {_CACHE_USED}"  # noqa: S608 - fixed texts
    f" FROM {_BLOCK} WHERE {_PRESENT} AND b.multihash"
)


def select_many(
    connection: sqlite3.Connection, query: str, values: Iterable[bytes | str | int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query for many values, with one statement for every few hundred.

    Args:
        connection: a connection to the index.
        query: a statement with ``(??)`` instead of each list of values.
        values: any number of values.
    """
    rest = iter(values)
    occurrences = query.count(VALUES)
    while batch := list(islice(rest, MAX_VALUES)):
        placeholders = f"({','.join('?' * len(batch))})"
        yield from connection.execute(query.replace(VALUES, placeholders), batch * occurrences).fetchall()


@dataclass(frozen=True, slots=True)
class BlockRow:
    """The location of a block.

    Attributes:
        data: the bytes of an inline block; None if a file holds them.
        place_name: path of the file that holds the block, below the store's directory; None if it is inline.
        place_id: id of the file's row; None if the block is inline.
        offset: where the bytes begin in the file.
        length: the number of bytes.
        form: how the block is made from the bytes.
        cache_used: for a file of the cache, when it was last used, in seconds since 1970; else None.
    """

    data: bytes | None
    place_name: str | None
    place_id: int | None
    offset: int
    length: int
    form: LeafEncoding
    cache_used: int | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """File system metadata of a file. A file whose stamp has not changed counts as unchanged."""

    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp from a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A file of the store as recorded in the index."""

    id: int
    name: str
    stamp: Stamp
    is_damaged: bool
    is_deletable: bool
    cache_used: int | None = None


class NewBlock(NamedTuple):
    """A row to be inserted; ``insert_blocks`` and ``insert_leaves`` add its place. A tuple, because there are many."""

    multihash: bytes
    data: bytes | None
    offset: int
    length: int
    form: int


def find_block(connection: sqlite3.Connection, multihash: bytes) -> BlockRow | None:
    """Return the location of a block; None if it has no row."""
    row = connection.execute(f"{_BLOCK_ROWS} = ?", (multihash,)).fetchone()
    return None if row is None else _block_row(row)


def find_blocks(connection: sqlite3.Connection, multihashes: Iterable[bytes]) -> dict[bytes, BlockRow]:
    """Return the locations of many blocks. Blocks without a row are left out."""
    rows = select_many(connection, f"{_BLOCK_ROWS} IN {VALUES}", multihashes)
    return {row[0]: _block_row(row) for row in rows}


def _block_row(row: tuple[Any, ...]) -> BlockRow:
    _, data, place_name, place_id, offset, length, form, cache_used = row
    return BlockRow(data, place_name, place_id, offset, length, LeafEncoding(form), cache_used)


def is_known(connection: sqlite3.Connection, multihash: bytes) -> bool:
    """Return whether a block has a row."""
    row = connection.execute(
        f"SELECT 1 FROM {_BLOCK} WHERE b.multihash = ? AND {_PRESENT}",  # noqa: S608 - fixed texts
        (multihash,),
    ).fetchone()
    return row is not None


def known_among(connection: sqlite3.Connection, multihashes: Iterable[bytes], class_: str = OWNED) -> set[bytes]:
    """Return the blocks that a publication of a class may rely on.

    Their files have no known damage. For class ``owned`` these files are also neither deletable nor in the cache.
    """
    condition = _READABLE if class_ == CACHE else _IN_USE
    query = f"SELECT b.multihash FROM {_BLOCK} WHERE {condition} AND b.multihash IN {VALUES}"  # noqa: S608 - fixed texts
    return {multihash for (multihash,) in select_many(connection, query, multihashes)}


def all_known_among(connection: sqlite3.Connection, multihashes: Iterable[bytes]) -> set[bytes]:
    """Return the blocks that have a row."""
    query = f"SELECT b.multihash FROM {_BLOCK} WHERE {_PRESENT} AND b.multihash IN {VALUES}"  # noqa: S608 - fixed texts
    return {multihash for (multihash,) in select_many(connection, query, multihashes)}


def places_among(connection: sqlite3.Connection, names: Iterable[str]) -> set[str]:
    """Return the names of the files that have a row."""
    return {name for (name,) in select_many(connection, f"SELECT name FROM place WHERE name IN {VALUES}", names)}  # noqa: S608 - fixed texts


def find_object_of(connection: sqlite3.Connection, cid: CID) -> PlaceRow | None:
    """Return the object that is the file of a CID. The same multihash with another codec is another file."""
    place = find_object(connection, cid.multihash)
    if place is None:
        return None
    # If the root is a single raw leaf, its row points into an object. The rows of nodes point to packs or are inline.
    piece = connection.execute(
        "SELECT b.length FROM block b JOIN place p ON p.id = b.place"
        " WHERE b.multihash = ? AND b.form = ? AND p.kind = ?",
        (cid.multihash, LeafEncoding.RAW, OBJECT),
    ).fetchone()
    if cid.codec == RAW:
        return place if piece == (place.stamp.size_bytes,) else None
    return place if cid.codec == DAG_PB and piece is None else None


def find_object(connection: sqlite3.Connection, root: bytes) -> PlaceRow | None:
    """Return the object whose root has a multihash."""
    row = connection.execute(
        f"SELECT p.id, p.name, p.inode, p.size, p.mtime_ns, p.damaged, p.condemned_at, {_CACHE_USED}"  # noqa: S608 - fixed texts
        f" FROM place p WHERE p.root = ? AND {_PRESENT}",
        (root,),
    ).fetchone()
    if row is None:
        return None
    return PlaceRow(row[0], row[1], Stamp(*row[2:5]), bool(row[5]), row[6] is not None, row[7])


def insert_place(
    connection: sqlite3.Connection,
    kind: str,
    name: str,
    stamp: Stamp,
    root: bytes | None = None,
    *,
    class_: str = OWNED,
) -> int:
    """Add a file. Return its id."""
    cursor = connection.execute(
        "INSERT INTO place (kind, name, root, size, class, inode, mtime_ns, last_used) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (kind, name, root, stamp.size_bytes, class_, stamp.inode, stamp.mtime_ns, int(time.time())),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_blocks(
    connection: sqlite3.Connection, place_id: int | None, blocks: Iterable[NewBlock], class_: str = OWNED
) -> int:
    """Add small blocks. A block that has a row keeps its location, unless ``class_`` calls for a better one.

    An owned block replaces a location that is damaged, deletable, tombstoned or in the cache. A cached block replaces
    only a tombstoned location or a damaged one in the cache: the cache may be evicted at any time.

    Returns:
        The number of rows written.
    """
    stays_if = f"({_PRESENT} AND (p.class = 'owned' OR p.damaged = 0))" if class_ == CACHE else _IN_USE
    moves_if = f"EXISTS (SELECT 1 FROM {_ITS_PLACE} AND NOT {stays_if})"  # noqa: S608 - fixed texts
    return _insert(connection, place_id, blocks, moves_if)


def insert_leaves(connection: sqlite3.Connection, place_id: int, leaves: Iterable[NewBlock]) -> int:
    """Add the leaves of an object. A leaf keeps its location in another sound object; otherwise it moves to this one.

    The move keeps an invariant: a leaf of an object always has the length of its piece of the file.
    """
    moves_if = f"NOT EXISTS (SELECT 1 FROM {_ITS_PLACE} AND p.root IS NOT NULL AND {_IN_USE})"  # noqa: S608 - fixed texts
    return _insert(connection, place_id, leaves, moves_if)


def _insert(connection: sqlite3.Connection, place_id: int | None, blocks: Iterable[NewBlock], moves_if: str) -> int:
    cursor = connection.executemany(
        "INSERT INTO block (multihash, data, offset, length, form, place)"  # noqa: S608 - two fixed conditions
        f" VALUES (?, ?, ?, ?, ?, {'NULL' if place_id is None else int(place_id)})"
        " ON CONFLICT (multihash) DO UPDATE SET data = excluded.data, offset = excluded.offset,"
        f" length = excluded.length, form = excluded.form, place = excluded.place WHERE {moves_if}",
        blocks,
    )
    return cursor.rowcount


def restamp(connection: sqlite3.Connection, place: PlaceRow, stamp: Stamp) -> None:
    """Record that a file was found undamaged, with a new stamp."""
    connection.execute(
        "UPDATE place SET inode = ?, mtime_ns = ?, damaged = 0 WHERE id = ? AND name = ?",
        (stamp.inode, stamp.mtime_ns, place.id, place.name),
    )


def mark_damaged(connection: sqlite3.Connection, place_id: int, name: str) -> None:
    """Record damage in a file. Its blocks count as absent for dedupe, so that adding them again heals them."""
    connection.execute("UPDATE place SET damaged = 1 WHERE id = ? AND name = ?", (place_id, name))


def mark_inline_damaged(connection: sqlite3.Connection, multihash: bytes, name: str) -> None:
    """Record damage in an inline block, so that adding it again heals it.

    The row of the block is moved to a new damaged place without a file.
    """
    place_id = insert_place(connection, PACK, name, Stamp(0, 0, 0))
    mark_damaged(connection, place_id, name)
    moved = connection.execute(
        "UPDATE block SET place = ?, data = NULL WHERE multihash = ? AND place IS NULL", (place_id, multihash)
    )
    if not moved.rowcount:
        connection.execute("DELETE FROM place WHERE id = ?", (place_id,))


def move_to_quarantine(connection: sqlite3.Connection, place_id: int, name: str) -> None:
    """Record that a damaged object is in quarantine under a new name and is no longer the file of its root."""
    connection.execute(
        "UPDATE place SET damaged = 1, root = NULL, last_used = 0, name = ? WHERE id = ?", (name, place_id)
    )


def retire_object(connection: sqlite3.Connection, root: bytes) -> None:
    """Release a root from its damaged, missing, deletable or cached object, so that a new object can take it."""
    connection.execute(
        "UPDATE place SET root = NULL, last_used = 0,"
        " damaged = CASE WHEN condemned_at IS NULL AND class = 'owned' THEN 1 ELSE damaged END WHERE root = ?",
        (root,),
    )


def touch_cached(connection: sqlite3.Connection, place_id: int) -> None:
    """Record that a file of the cache is used now."""
    connection.execute("UPDATE place SET last_used = ? WHERE id = ? AND class = 'cache'", (int(time.time()), place_id))
