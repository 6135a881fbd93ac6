"""Builder of the nodes above leaves: file nodes from leaves, and directory nodes from links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link, encode_node
from mlflow_ipfs.content.codecs.hamt import HamtBuilder
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, encode_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mlflow_ipfs.content.profiles import Profile


@dataclass(frozen=True, slots=True)
class Subtree:
    """A finished node of a file, with the sizes of everything below it.

    Attributes:
        cid: the CID of the node.
        size_bytes: number of bytes of the file below the node.
        dag_bytes: sum of the sizes of the node and all blocks below it.
    """

    cid: CID
    size_bytes: int
    dag_bytes: int


class NodeBuilder:
    """Builder of nodes according to a profile.

    Args:
        put: stores a block under its CID.
        profile: determines the CID version, the tree width and the HAMT parameters.
    """

    def __init__(self, put: Callable[[CID, bytes], None], profile: Profile) -> None:
        self._put = put
        self._profile = profile

    def put_node(self, block: bytes) -> CID:
        """Store a dag-pb block and return its CID."""
        cid = CID.of(block, DAG_PB, version=self._profile.cid_version)
        self._put(cid, block)
        return cid

    def put_leaf(self, block: bytes, *, raw: bool) -> Subtree:
        """Store the block of a leaf, which is raw or a UnixFS File node."""
        cid = CID.of(block) if raw else CID.of(block, DAG_PB, version=self._profile.cid_version)
        self._put(cid, block)
        return Subtree(cid, len(block), len(block))

    def build_file(self, leaves: Sequence[Subtree], *, mode: int | None = None, mtime_ns: int | None = None) -> Subtree:
        """Build a balanced tree above the leaves, and return its root. Each node has at most ``max_links`` children.

        A single leaf is returned as the file. The mode and the mtime are recorded in the root. A single leaf must
        already record them.
        """
        level = list(leaves)
        width = self._profile.max_links
        while len(level) > 1:
            is_root = len(level) <= width
            level = [
                self._build_parent(
                    level[start : start + width],
                    mode=mode if is_root else None,
                    mtime_ns=mtime_ns if is_root else None,
                )
                for start in range(0, len(level), width)
            ]
        return level[0]

    def _build_parent(self, children: Sequence[Subtree], *, mode: int | None, mtime_ns: int | None) -> Subtree:
        size_bytes = sum(child.size_bytes for child in children)
        data = UnixFSData(
            NodeType.FILE,
            size_bytes=size_bytes,
            block_sizes=tuple(child.size_bytes for child in children),
            mode=mode,
            mtime_ns=mtime_ns,
        )
        block = encode_node([Link(child.cid, b"", child.dag_bytes) for child in children], encode_data(data))
        dag_bytes = len(block) + sum(child.dag_bytes for child in children)
        return Subtree(self.put_node(block), size_bytes, dag_bytes)

    def build_directory(self, links: Sequence[Link], *, mode: int | None = None, mtime_ns: int | None = None) -> Link:
        """Build a directory. It is sharded if the profile's size estimate exceeds the threshold.

        Args:
            links: the entries of the directory in any order, with unique names.
            mode: permission bits to record, if any.
            mtime_ns: modification time to record, if any.

        Returns:
            A nameless link to the directory.
        """
        links = sorted(links, key=lambda link: link.name or b"")  # by raw bytes, without locale or Unicode rules
        if self._exceeds_threshold(links):
            return self._build_shards(links, mode, mtime_ns)
        block = encode_node(links, encode_data(UnixFSData(NodeType.DIRECTORY, mode=mode, mtime_ns=mtime_ns)))
        if self._profile.hamt_estimate != "links" and len(block) > self._profile.hamt_threshold_bytes:
            return self._build_shards(links, mode, mtime_ns)
        return Link(self.put_node(block), b"", len(block) + sum(link.size_bytes or 0 for link in links))

    def _build_shards(self, links: Sequence[Link], mode: int | None, mtime_ns: int | None) -> Link:
        return HamtBuilder(self.put_node, self._profile.hamt_fanout).build(links, mode=mode, mtime_ns=mtime_ns)

    def _exceeds_threshold(self, links: Iterable[Link]) -> bool:
        """Return whether the names and the CIDs alone exceed the threshold.

        This sum is the profile's estimate "links", and a lower bound of the size of the block. The sum stops at the
        threshold, so that no block is built for a very large directory that is going to be sharded.
        """
        left = self._profile.hamt_threshold_bytes
        for link in links:
            left -= len(link.name or b"") + len(bytes(link.cid))
            if left < 0:
                return True
        return False
