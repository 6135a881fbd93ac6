"""Storages under test: content for them, disks that fail, and what must be true of a sound local store."""

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
    """A raw block."""
    return CID.of(data), data


def put_file(
    publication: Publication,
    data: bytes,
    *,
    leaf_bytes: int = LEAF_BYTES,
    wrapped: bool = False,
    max_links: int | None = None,
) -> CID:
    """Write one file as an object, and put the nodes above its leaves. Returns its root."""
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
    """Publish one file as an object, pinned for an owner."""
    with storage.publish() as publication:
        root = put_file(publication, data, **options)
        publication.commit(Changes(pins=[Pin(owner, root)] if owner else []))
    return root


def publish_blocks(storage: Storage, *blocks: bytes, owner: str | None = USER) -> list[CID]:
    """Publish raw blocks in one step, each pinned."""
    cids = [CID.of(block) for block in blocks]
    with storage.publish() as publication:
        for cid, block in zip(cids, blocks, strict=True):
            publication.put(cid, block)
        publication.commit(Changes(pins=[Pin(owner, cid) for cid in cids] if owner else []))
    return cids


def put_block(storage: Storage, cid: CID, data: bytes) -> None:
    """Publish one block, which must hash to its CID, without a name."""
    put_blocks(storage, [(cid, data)])


def put_blocks(storage: Storage, blocks: Iterable[tuple[CID, bytes]]) -> None:
    """Publish blocks in one step, without names."""
    with storage.publish() as publication:
        for cid, data in blocks:
            cid.verify(data)
            publication.put(cid, data)
        publication.commit()


def delete_block(storage: Storage, cid: CID) -> bool:
    """Lose a block, as damage to the index would. Returns whether it was there."""
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
    """The multihash of every block in a storage."""
    if isinstance(storage, MemoryStorage):
        with storage._state.changed:
            return iter(list(storage._state.blocks))
    assert isinstance(storage, LocalStorage)
    with storage._context.database.read() as connection:
        query = f"SELECT b.multihash FROM {index_rows._BLOCK} WHERE {index_rows._THERE} ORDER BY b.id"
        return iter([row[0] for row in connection.execute(query)])


def block_of(piece: bytes, *, wrapped: bool) -> bytes:
    """The block of one leaf."""
    return encode_leaf(piece) if wrapped else piece


class SteppedDisk(Disk):
    """A disk that tells of each step that changes it before the step is taken."""

    def __init__(self, on_step: Callable[[str], None]) -> None:
        self._on_step = on_step


def _stepped(name: str) -> Callable[..., Any]:
    def method(self: SteppedDisk, *args: Any, **kwargs: Any) -> Any:
        self._on_step(name)
        return getattr(Disk, name)(self, *args, **kwargs)

    return method


NO_STEPS = {
    "start_writeback": "only lets the system begin with what `sync` waits for",
    "close": "changes nothing on the disk",
    "open_to_read": "only reads",
    "read_at": "only reads",
    "read_at_or_empty": "only reads",
    "read_piece": "only reads",
    "status": "only reads",
    "free_bytes": "only reads",
    "write_file": "consists of other steps",
}
"""The methods of ``Disk`` that are not steps, and why. All others are, so that a new method is not forgotten."""

METHODS = tuple(name for name, value in vars(Disk).items() if callable(value) and not name.startswith("_"))
STEPS = tuple(name for name in METHODS if name not in NO_STEPS)
for _name in STEPS:
    setattr(SteppedDisk, _name, _stepped(_name))


def steps_except(reasons: dict[str, str]) -> frozenset[str]:
    """All steps but some, each of which has a reason.

    Raises:
        ValueError: one of them is not a step, so that its reason is out of date.
    """
    unknown = reasons.keys() - set(STEPS)
    if unknown:
        msg = f"{', '.join(sorted(unknown))}: no step of Disk (any more)"
        raise ValueError(msg)
    return frozenset(STEPS) - reasons.keys()


class FullDisk(SteppedDisk):
    """A disk that has no room from the n-th step on that needs some; removing gives none back.

    Attributes:
        room_for: how many such steps there is still room for.
        refused: whether any was refused.
    """

    NEEDS_ROOM = steps_except(
        {
            "seal": "changes a mode",
            "set_mtime": "changes a time",
            "make_read_only": "changes a mode",
            "rename": "takes the place of another name, as a rule",
            "remove": "needs none",
            "remove_tree": "needs none",
            "sync_directory": "names got their room when they were made",
            "clone": "shares its bytes with another file",
            "link": "is a name",
            "checkpoint": "may be put off",
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
    """Names of the immutable files that lie in the store."""
    return {str(path.relative_to(storage.directory)) for path in storage.directory.glob("files/*/*")}


def rows_of(storage: LocalStorage, query: str) -> list[tuple[Any, ...]]:
    """Ask the store's index directly."""
    connection = sqlite3.connect(storage.directory / "store.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def leftovers(directory: Path) -> list[str]:
    """Drafts of publications that are lying about."""
    return sorted(str(path.relative_to(directory)) for path in directory.glob("tmp/*/*"))


def check_sound(storage: LocalStorage) -> None:
    """Check what must hold at any time when nobody publishes.

    Every row has its bytes, whatever has a name is whole, and the index agrees with SQLite's own check.
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
                msg = f"content with a name in the table {table} is not whole: {error}"
                raise AssertionError(msg) from error


def tables_with_names(storage: LocalStorage) -> list[str]:
    """The tables whose CIDs keep content: pins, refs, ``mfs://`` files, frozen paths, outbox, and any later one."""
    query = (
        "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
        " WHERE m.type = 'table' AND c.name = 'cid' ORDER BY m.name"
    )
    return [name for (name,) in rows_of(storage, query)]
