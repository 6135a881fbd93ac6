"""Large files of which the store has most already: fine-tuned models, grown datasets. Only what is new is kept.

The store then has no contiguous copy of the file. Who asks for a path gets one in the cache (``assembling.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.files.block_reading import StoredBlock, read_stored_block
from mlflow_ipfs.content.storage.local.index import index_rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.files.drafts import Draft
    from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
    from mlflow_ipfs.content.system.disk import Disk

DEDUPE_BYTES: Final = 64 << 20  # smaller files are kept whole: reading them without a copy is worth more


def find_new_leaves(
    connection: sqlite3.Connection, leaves: Sequence[NewBlock], size_bytes: int
) -> list[NewBlock] | None:
    """The leaves of a large file that the store does not have, each once; None if it has less than half of the file."""
    if size_bytes < DEDUPE_BYTES:
        return None
    known = index_rows.known_among(connection, {leaf.multihash for leaf in leaves})
    missing = [leaf for leaf in leaves if leaf.multihash not in known]
    if 2 * sum(leaf.length for leaf in missing) > size_bytes:
        return None
    return list({leaf.multihash: leaf for leaf in missing}.values())


def move_leaves(disk: Disk, draft: Draft, leaves: Iterable[NewBlock], put: Callable[[CID, bytes], None]) -> None:
    """Put leaves of a draft where small blocks go. The draft stays the caller's."""
    descriptor = disk.open_to_read(draft.path)
    try:
        for leaf in leaves:
            stored = StoredBlock(0, leaf.multihash, leaf.offset, leaf.length, leaf.form)
            put(*read_stored_block(disk, descriptor, stored))
    finally:
        disk.close(descriptor)
