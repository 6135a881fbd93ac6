"""From leaves to files and from links to directories: the nodes above the bytes."""

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
    """A part of a file that has its node.

    Attributes:
        cid: the node.
        size_bytes: bytes of the file below it.
        dag_bytes: bytes of all blocks below it, itself included.
    """

    cid: CID
    size_bytes: int
    dag_bytes: int


class NodeBuilder:
    """Builds nodes as a profile has them, and hands each block on.

    Args:
        put: keeps a block under its CID.
        profile: CID version, widths and HAMT rules.
    """

    def __init__(self, put: Callable[[CID, bytes], None], profile: Profile) -> None:
        self._put = put
        self._profile = profile

    def put_node(self, block: bytes) -> CID:
        """Keep a dag-pb block."""
        cid = CID.of(block, DAG_PB, version=self._profile.cid_version)
        self._put(cid, block)
        return cid

    def put_leaf(self, block: bytes, *, raw: bool) -> Subtree:
        """Keep the only block of a small file: ``raw``, or a UnixFS File node."""
        cid = CID.of(block) if raw else CID.of(block, DAG_PB, version=self._profile.cid_version)
        self._put(cid, block)
        return Subtree(cid, len(block), len(block))

    def build_file(self, leaves: Sequence[Subtree], *, mode: int | None = None, mtime_ns: int | None = None) -> Subtree:
        """Lay leaves out as a balanced tree: groups of ``max_links``, level by level, until one node is left.

        A single leaf is the file. Mode and mtime go to the root; a single leaf must have them already.
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
        """Build a directory, sharded when the profile's estimate says that it is too large for one block.

        Args:
            links: what is in the directory, in any order, each name once.
            mode: permission bits to record, if any.
            mtime_ns: modification time to record, if any.

        Returns:
            A nameless link to the directory.
        """
        links = sorted(links, key=lambda link: link.name or b"")  # raw bytes: no locale, no Unicode folding
        if self._is_surely_too_large(links):
            return self._build_shards(links, mode, mtime_ns)
        block = encode_node(links, encode_data(UnixFSData(NodeType.DIRECTORY, mode=mode, mtime_ns=mtime_ns)))
        if self._profile.hamt_estimate != "links" and len(block) > self._profile.hamt_threshold_bytes:
            return self._build_shards(links, mode, mtime_ns)
        return Link(self.put_node(block), b"", len(block) + sum(link.size_bytes or 0 for link in links))

    def _build_shards(self, links: Sequence[Link], mode: int | None, mtime_ns: int | None) -> Link:
        return HamtBuilder(self.put_node, self._profile.hamt_fanout).build(links, mode=mode, mtime_ns=mtime_ns)

    def _is_surely_too_large(self, links: Iterable[Link]) -> bool:
        """Whether names and CIDs alone are too many bytes: all that the estimate "links" counts, and less than a block.

        Stops at the threshold, so that no block of a very large directory is built in vain.
        """
        left = self._profile.hamt_threshold_bytes
        for link in links:
            left -= len(link.name or b"") + len(bytes(link.cid))
            if left < 0:
                return True
        return False
