"""Storages under test: content for them, disks that fail, and checks of a local store."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_ipfs.content.blocks.base import Leaf
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, encode_leaf
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.leaf_pipeline import hash_leaf
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import LocalStorage
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.storage.base import Publication, Storage

LEAF_BYTES = 1000


def raw(data: bytes) -> tuple[CID, bytes]:
    """Return a raw block with its CID."""
    return CID.of(data), data


def put_file(
    publication: Publication,
    data: bytes,
    *,
    leaf_bytes: int = LEAF_BYTES,
    wrapped: bool = False,
    max_links: int | None = None,
) -> CID:
    """Write one file as an object, and put the nodes above its leaves. Return its root."""
    profile, form = (UNIXFS_V0_2015, LeafEncoding.UNIXFS_FILE) if wrapped else (UNIXFS_V1_2025, LeafEncoding.RAW)
    writer = publication.begin_file()
    writer.write(data)
    pieces = [data[start : start + leaf_bytes] for start in range(0, len(data), leaf_bytes)] or [b""]
    subtrees = [hash_leaf(piece, form, profile.cid_version) for piece in pieces]
    if max_links:
        profile = replace(profile, max_links=max_links)
    root = NodeBuilder(publication.put, profile).build_file(subtrees).cid
    offsets = range(0, len(data) or 1, leaf_bytes)
    leaves = [Leaf(tree.cid, start, tree.size_bytes, form) for tree, start in zip(subtrees, offsets, strict=True)]
    writer.finish(root, leaves)
    return root


def publish_file(storage: Storage, data: bytes, *, owner: str | None = USER, **options: Any) -> CID:
    """Publish one file as an object, pinned for an owner. Return its root."""
    with storage.publish() as publication:
        root = put_file(publication, data, **options)
        publication.commit(Changes(pins=[Pin(owner, root)] if owner else []))
    return root


def publish_blocks(storage: Storage, *blocks: bytes, owner: str | None = USER) -> list[CID]:
    """Publish raw blocks in one publication, each with a pin. Return their CIDs."""
    cids = [CID.of(block) for block in blocks]
    with storage.publish() as publication:
        for cid, block in zip(cids, blocks, strict=True):
            publication.put(cid, block)
        publication.commit(Changes(pins=[Pin(owner, cid) for cid in cids] if owner else []))
    return cids


def put_block(storage: Storage, cid: CID, data: bytes) -> None:
    """Publish one block without a name. The block must match its CID."""
    put_blocks(storage, [(cid, data)])


def put_blocks(storage: Storage, blocks: Iterable[tuple[CID, bytes]]) -> None:
    """Publish blocks in one publication, without names."""
    with storage.publish() as publication:
        for cid, data in blocks:
            cid.verify(data)
            publication.put(cid, data)
        publication.commit()


def delete_block(storage: Storage, cid: CID) -> bool:
    """Delete a block, as damage to the index would. Return whether it was stored."""
    if isinstance(storage, MemoryStorage):
        with storage._state.changed:
            storage._state.cached.discard(cid.multihash)
            return storage._state.blocks.pop(cid.multihash, None) is not None
    assert isinstance(storage, LocalStorage)
    with storage._context.database.write() as connection:
        connection.execute("UPDATE place SET root = NULL WHERE root = ?", (cid.multihash,))
        gone = connection.execute("DELETE FROM block WHERE multihash = ?", (cid.multihash,))
    return bool(gone.rowcount)


def multihashes(storage: Storage) -> Iterator[bytes]:
    """Yield the multihash of every block in a storage."""
    if isinstance(storage, MemoryStorage):
        with storage._state.changed:
            return iter(list(storage._state.blocks))
    assert isinstance(storage, LocalStorage)
    with storage._context.database.read() as connection:
        query = f"SELECT b.multihash FROM {index_rows._BLOCK} WHERE {index_rows._PRESENT} ORDER BY b.id"
        return iter([row[0] for row in connection.execute(query)])


def block_of(piece: bytes, *, wrapped: bool) -> bytes:
    """Return the block of one leaf."""
    return encode_leaf(piece) if wrapped else piece


class SteppedDisk(Disk):
    """Disk that calls a function before each step that changes it."""

    def __init__(self, on_step: Callable[[str], None]) -> None:
        self._on_step = on_step


def _stepped(name: str) -> Callable[..., Any]:
    def method(self: SteppedDisk, *args: Any, **kwargs: Any) -> Any:
        self._on_step(name)
        return getattr(Disk, name)(self, *args, **kwargs)

    return method


NO_STEPS = {
    "start_writeback": "only starts the writes that `sync` waits for",
    "close": "changes nothing on the disk",
    "open_to_read": "only reads",
    "read_at": "only reads",
    "read_at_or_empty": "only reads",
    "read_piece": "only reads",
    "status": "only reads",
    "free_bytes": "only reads",
    "write_file": "consists of other steps",
}
"""Methods of ``Disk`` that are not steps, with the reasons. All other methods are steps, so that none is forgotten."""

METHODS = tuple(name for name, value in vars(Disk).items() if callable(value) and not name.startswith("_"))
STEPS = tuple(name for name in METHODS if name not in NO_STEPS)
for _name in STEPS:
    setattr(SteppedDisk, _name, _stepped(_name))


def steps_except(reasons: dict[str, str]) -> frozenset[str]:
    """Return all steps except some. The reason for each exception is given.

    Raises:
        ValueError: an exception is not a step, so its reason is outdated.
    """
    unknown = reasons.keys() - set(STEPS)
    if unknown:
        msg = f"not a step of Disk: {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    return frozenset(STEPS) - reasons.keys()


class FullDisk(SteppedDisk):
    """Disk that is full from the n-th step on that needs space. Removing files does not free space.

    Attributes:
        room_for: number of such steps before the disk is full.
        refused: whether a step has failed.
    """

    NEEDS_ROOM = steps_except(
        {
            "seal": "changes a mode",
            "set_mtime": "changes a time",
            "make_read_only": "changes a mode",
            "rename": "usually replaces another name",
            "remove": "needs no space",
            "remove_tree": "needs no space",
            "sync_directory": "the space of names is allocated when they are created",
            "clone": "shares its data with another file",
            "link": "only creates a name",
            "checkpoint": "may be deferred",
        }
    )

    def __init__(self, room_for: int = 1_000_000) -> None:
        super().__init__(self._check)
        self.room_for = room_for
        self.refused = False

    def _check(self, step: str) -> None:
        if step not in self.NEEDS_ROOM:
            return
        self.room_for -= 1
        if self.room_for >= 0:
            return
        self.refused = True
        if step in {"commit", "copy_database"}:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files_of(storage: LocalStorage) -> set[str]:
    """Return the names of the immutable files in the store."""
    return {str(path.relative_to(storage.directory)) for path in storage.directory.glob("files/*/*")}


def rows_of(storage: LocalStorage, query: str) -> list[tuple[Any, ...]]:
    """Query the index of the store directly."""
    connection = sqlite3.connect(storage.directory / "store.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def leftovers(directory: Path) -> list[str]:
    """Return the drafts that publications have left."""
    return sorted(str(path.relative_to(directory)) for path in directory.glob("tmp/*/*"))


def check_sound(storage: LocalStorage) -> None:
    """Check the invariants of a store without running publications.

    Every row has its data, all content with a name is complete, and the index passes the integrity check of SQLite.
    """
    assert rows_of(storage, "PRAGMA integrity_check") == [("ok",)]
    names = {row[0] for row in rows_of(storage, "SELECT name FROM place")}
    assert names <= files_of(storage), "a row without its file"
    for multihash in multihashes(storage):
        storage.blocks.get(CID(1, 0x55, multihash))
    for table in tables_with_names(storage):
        for (cid,) in rows_of(storage, f"SELECT DISTINCT cid FROM {table}"):
            try:
                for _ in walk_blocks(storage.blocks, CID.from_bytes(cid)):
                    pass
            except MlflowIpfsError as error:
                msg = f"content with a name in the table {table} is incomplete: {error}"
                raise AssertionError(msg) from error


def tables_with_names(storage: LocalStorage) -> list[str]:
    """Return the tables whose CIDs keep content: pins, refs, ``mfs://`` files, frozen paths, outbox, and later ones."""
    query = (
        "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
        " WHERE m.type = 'table' AND c.name = 'cid' ORDER BY m.name"
    )
    return [name for (name,) in rows_of(storage, query)]
