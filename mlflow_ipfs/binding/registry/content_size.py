"""Size of a model as MLflow's users count it: the bytes of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore


def sum_of_file_sizes(store: ContentStore, cid: CID) -> int:
    """Return the sum of the sizes of all files below a CID, in bytes.

    Content may be hostile: each directory is listed once, however many links lead to it, and the depth is not limited by
    Python's stack.
    """
    entry = store.stat(cid)
    if not entry.is_dir:
        return entry.size_bytes
    sizes: dict[CID, int] = {}
    todo = [cid]
    while todo:
        entries = store.ls(todo[-1])
        unknown = {found.cid for found in entries if found.is_dir and found.cid not in sizes}
        if unknown:
            todo += unknown
            continue
        sizes[todo.pop()] = sum(sizes[found.cid] if found.is_dir else found.size_bytes for found in entries)
    return sizes[cid]
