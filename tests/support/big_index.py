"""Local store whose index has millions of blocks, made within a minute: rows without data."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.node_builder import NodeBuilder, Subtree
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK_BYTES: Final = 1000
_RAW: Final = 0x55
_LEAVES_PER_FILE: Final = 50_000


def leaf_cid(number: int) -> CID:
    """Return the CID of one of the blocks, whose data does not exist."""
    return CID(1, _RAW, b"\x12\x20" + hashlib.sha256(b"leaf %d" % number).digest())


def make_big_index(directory: Path, count: int, pinned: int) -> None:
    """Make a store with ``count`` blocks in one pack, a sparse file of zeros.

    The first ``pinned`` blocks are the leaves of files. The nodes of these files are real, and the files are pinned.
    """
    with open_local_storage(directory) as storage:
        _insert_blocks(directory, count)
        with storage.publish() as publication:
            nodes, pins = NodeBuilder(publication.put, UNIXFS_V1_2025), []
            for start in range(0, pinned, _LEAVES_PER_FILE):
                numbers = range(start, min(start + _LEAVES_PER_FILE, pinned))
                leaves = [Subtree(leaf_cid(number), _BLOCK_BYTES, _BLOCK_BYTES) for number in numbers]
                pins.append(Pin(USER, nodes.build_file(leaves).cid))
            publication.commit(Changes(pins=pins))


def _insert_blocks(directory: Path, count: int) -> None:
    path = directory / "files" / "00" / "big.car"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, count * _BLOCK_BYTES)
    status = path.stat()
    connection = sqlite3.connect(directory / "store.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO place (id, kind, name, size, inode, mtime_ns, last_used) VALUES (1, 'pack', ?, ?, ?, ?, 0)",
            (str(path.relative_to(directory)), status.st_size, status.st_ino, status.st_mtime_ns),
        )
        connection.executemany(
            "INSERT INTO block (multihash, place, offset, length, form) VALUES (?, 1, ?, ?, 0)", _rows(count)
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


def _rows(count: int) -> Iterator[tuple[bytes, int, int]]:
    for number in range(count):
        yield leaf_cid(number).multihash, number * _BLOCK_BYTES, _BLOCK_BYTES
