"""Names of a store whose content lacks blocks, for example after a lost index was rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.checking.completeness import find_missing
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.storage.maintenance import Affected
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.base import Storage


def find_incomplete_names(storage: Storage) -> Iterator[Affected]:
    """Yield each name below which a block is missing, with the first missing block.

    A scrub cannot find missing blocks, because it reads what is stored. Nodes are read; for leaves, only their presence
    is checked. A node that is damaged or malformed counts as missing.
    """
    seen = SeenBlocks()
    for kind, name, cid in _list_names(storage):
        missing = _find_unreadable(storage, cid, seen)
        if missing is not None:
            seen = SeenBlocks()  # it has nodes whose blocks below were not all checked
            yield Affected(kind, name, cid, (missing,))


def _find_unreadable(storage: Storage, cid: CID, seen: SeenBlocks) -> CID | None:
    try:
        return find_missing(storage.blocks, cid, seen=seen)
    except (MlflowIpfsError, OSError):  # the message names the block; `verify` explains it
        return cid


def _list_names(storage: Storage) -> Iterator[tuple[NameKind, str, CID]]:
    for root in storage.roots():
        if root.cid is not None:
            yield root.kind, root.name, root.cid
            continue
        tree, _, path = root.name.removeprefix("mfs://").partition("/")
        for entry in storage.entries.list(tree, path):
            if isinstance(entry, MfsEntry):
                yield NameKind.FILE, f"{root.name}/{entry.name}", entry.cid
