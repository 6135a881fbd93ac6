"""In-memory snapshots of mutable trees: the directory nodes are not written to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.store import ContentStore

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.storage.base import Storage


def snapshot_in_memory(store: ContentStore, location: MfsPath) -> tuple[ContentStore, CID]:
    """Return the current content of a file or directory of a mutable tree, without publishing it.

    Returns:
        A store with the content of the given one and the nodes of the directory; the CID of the file or directory.
        Closing the given store closes both.

    Raises:
        NotFoundError: the path does not exist.
    """
    snapshot = ContentStore(cast("Storage", _SnapshotStorage(store.storage)))
    return snapshot, snapshot.files.snapshot(location).cid


class _SnapshotStorage:
    """A storage whose publications stay in memory; everything else is that of another storage."""

    def __init__(self, below: Storage) -> None:
        self._below = below
        self._nodes: dict[bytes, bytes] = {}
        self.blocks = _SnapshotBlocks(below.blocks, self._nodes)

    def publish(self, *, hold_existing: bool = False) -> _MemoryPublication:
        """Start a publication whose blocks stay in memory."""
        del hold_existing  # in-memory content is not named, so existing blocks need no protection
        return _MemoryPublication(self._nodes)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the other storage
        return getattr(self._below, name)


class _SnapshotBlocks(BlockReader):
    def __init__(self, below: BlockReader, nodes: dict[bytes, bytes]) -> None:
        self._below = below
        self._nodes = nodes

    def get(self, cid: CID) -> bytes:
        """See ``BlockReader``."""
        node = self._nodes.get(cid.multihash)
        return self._below.get(cid) if node is None else node

    def has(self, cid: CID) -> bool:
        """See ``BlockReader``."""
        return cid.multihash in self._nodes or self._below.has(cid)


class _MemoryPublication(HashOnlyPublication):
    def __init__(self, nodes: dict[bytes, bytes]) -> None:
        self._nodes = nodes

    def put(self, cid: CID, data: bytes) -> None:
        """Keep the block in memory."""
        self._nodes[cid.multihash] = data
