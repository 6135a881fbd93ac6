"""Blocks of an object: a file with the bytes of one content file, named by the multihash of its root.

The nodes of the root give the offsets of its leaves, without a chunker. If nodes are lost, the file is cut again:

1. at the offsets in an old index,
2. into leaves with the lengths that the readable nodes have,
3. by every known chunker.

The cuts are right if the nodes built from them have the multihash of the root. These nodes are then added.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, BinaryIO, Final

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding, decode_unixfs
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.file_reader import max_parts
from mlflow_ipfs.content.files.leaf_pipeline import hash_leaf, leaf_rows
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.profiles import PROFILES
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
from mlflow_ipfs.content.system.read_ahead import map_ahead
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.files.node_builder import Subtree
    from mlflow_ipfs.content.profiles import Profile
    from mlflow_ipfs.content.storage.local.repair.rebuild.file_view import FileView
    from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import NewIndex

_BATCH: Final = 2000
_LEAVES_PER_THREAD: Final = 1  # at once: most files have few leaves, and those are large
_LENGTHS_TRIED: Final = 3  # of leaves below the readable nodes, the most frequent first
_UNKNOWN_CUTS: Final = "the nodes above its leaves are lost, and no known chunker cuts it into the leaves of its root"


class _NodesMissingError(Exception):
    """A node above the leaves is missing."""


@dataclass(slots=True)
class _Walk:
    """Facts about a file, from the readable nodes of its root.

    Attributes:
        size_bytes: the file's size; None if a node is missing.
        lengths: how many leaves have each length.
    """

    size_bytes: int | None = None
    lengths: Counter[int] = field(default_factory=Counter)

    def chunkers(self) -> list[Chunker]:
        """Return chunkers that cut the file into leaves of the known lengths."""
        usual = [length for length, _ in self.lengths.most_common(_LENGTHS_TRIED)]
        return [FixedSizeChunker(length) for length in usual if 0 < length <= MAX_LEAF_BYTES]


class ObjectReader:
    """Reader that finds the leaves in objects.

    Args:
        new_index: the new index, which has the blocks of all packs already.
        chunkers: chunkers by which files may have been cut.
    """

    def __init__(self, new_index: NewIndex, chunkers: Iterable[Chunker]) -> None:
        self._index = new_index
        self._chunkers = list(chunkers)

    def add_object(
        self, place_id: int, file: FileView, root: bytes, recorded: Callable[[], Sequence[NewBlock]]
    ) -> tuple[bool, str]:
        """Add the good leaves of an object.

        Args:
            place_id: the file's row.
            file: the file.
            root: the multihash in its name.
            recorded: returns the leaves in an old index, in order.

        Returns:
            Whether the leaves were found; and a description of the damage, empty if the file is undamaged.
        """
        if self._add_single_leaf(place_id, file, root):
            return True, ""
        walk = self._walk(root, file.size_bytes)
        likely = [_RecordedCuts(recorded), *walk.chunkers()]
        if walk.size_bytes is None:
            is_found = self._add_by_cutting(place_id, file, root, likely)
            return is_found, "" if is_found else _UNKNOWN_CUTS
        total, bad = self._add_leaves(place_id, file, root)
        # A missing node looks like a damaged wrapped leaf.
        may_lack_node = any(leaf.form == LeafEncoding.UNIXFS_FILE for leaf in bad)
        if may_lack_node and self._add_by_cutting(place_id, file, root, likely):
            return True, ""
        self._index.add_bad(place_id, bad)
        if bad:
            return True, f"{len(bad)} of its {total} leaves do not hash to their CIDs"
        if walk.size_bytes != file.size_bytes:
            return True, f"it has {file.size_bytes} bytes instead of {walk.size_bytes}"
        return True, ""

    def _add_single_leaf(self, place_id: int, file: FileView, root: bytes) -> bool:
        """Add the only leaf of a file, which is its root."""
        if file.size_bytes > MAX_LEAF_BYTES:
            return False
        data = file.read(0, file.size_bytes)
        for form in LeafEncoding:
            if hash_leaf(data, form, 1).cid.multihash == root:
                self._index.add_leaves(place_id, [NewBlock(root, None, 0, len(data), int(form))])
                return True
        return False

    def _walk(self, root: bytes, expected_bytes: int) -> _Walk:
        walk = _Walk()
        end = 0
        try:
            for leaf in iterate_leaves(self._index.find, root, max_visits=max_parts(expected_bytes)):
                end = leaf.offset + leaf.length
                walk.lengths[leaf.length] += 1
        except _NodesMissingError:
            return walk
        walk.size_bytes = end
        return walk

    def _add_leaves(self, place_id: int, file: FileView, root: bytes) -> tuple[int, list[NewBlock]]:
        """Add the good leaves that the nodes of a root name. Return the number of all leaves, and the bad leaves."""
        total, good, bad = 0, list[NewBlock](), list[NewBlock]()

        def check(leaf: NewBlock) -> tuple[NewBlock, bool]:
            return leaf, file.holds(leaf)

        leaves = iterate_leaves(self._index.find, root, max_visits=max_parts(file.size_bytes))
        with closing(map_ahead(check, leaves, batch=_LEAVES_PER_THREAD)) as checked:  # its threads end before the file
            for leaf, is_good in checked:
                total += 1
                if not is_good:
                    bad.append(leaf)
                elif CID(1, RAW, leaf.multihash).identity_data is None:
                    good.append(leaf)
                if len(good) == _BATCH:
                    self._index.add_leaves(place_id, good)
                    good.clear()
        self._index.add_leaves(place_id, good)
        return total, bad

    def _add_by_cutting(self, place_id: int, file: FileView, root: bytes, likely: list[Chunker]) -> bool:
        """Cut the file by each possible chunker, in each profile. Return whether one result has the root."""
        for chunker in dict.fromkeys([*likely, *self._chunkers]):
            if isinstance(chunker, FixedSizeChunker) and chunker.chunk_bytes >= file.size_bytes:
                continue  # a single leaf
            for profile in PROFILES.values():
                if self._add_cut(place_id, file, root, profile, chunker):
                    return True
        return False

    def _add_cut(self, place_id: int, file: FileView, root: bytes, profile: Profile, chunker: Chunker) -> bool:
        """Add the leaves that a chunker makes and the nodes above them, if the root is right. Return whether it is."""
        form = LeafEncoding.RAW if profile.raw_leaves else LeafEncoding.UNIXFS_FILE

        def hash_cut(piece: tuple[int, int]) -> Subtree:
            start, end = piece
            return hash_leaf(file.read(start, end - start), form, profile.cid_version)

        pieces = pairwise(chain((0,), file.cuts(chunker)))
        with closing(map_ahead(hash_cut, pieces, batch=_LEAVES_PER_THREAD)) as hashed:  # as above
            leaves = list(hashed)
        nodes = _nodes_above(leaves, root, profile)
        if not nodes:
            return False
        rows = [
            NewBlock(leaf.cid.multihash, None, leaf.offset, leaf.length, int(leaf.form))
            for leaf in leaf_rows(leaves, form)
        ]
        self._index.add_leaves(place_id, rows)
        for cid, block in nodes.items():
            self._index.add_inline(cid.multihash, block, cid)
        return True


def _nodes_above(leaves: Sequence[Subtree], root: bytes, profile: Profile) -> dict[CID, bytes]:
    """Build trees with the width of each profile. Return the nodes of the tree that has the root, else none."""
    for width in sorted({profile.max_links for profile in PROFILES.values()}):
        nodes: dict[CID, bytes] = {}
        builder = NodeBuilder(nodes.__setitem__, replace(profile, max_links=width))
        if leaves and builder.build_file(leaves).cid.multihash == root:
            return nodes
    return {}


class _RecordedCuts:
    """Chunker that repeats the cuts of one file that an old index has recorded."""

    def __init__(self, recorded: Callable[[], Sequence[NewBlock]]) -> None:
        self._recorded = recorded

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        """Yield the end offset of each leaf; nothing if the leaves do not cover the file. See ``Chunker``."""
        del file
        leaves = self._recorded()
        ends = [leaf.offset + leaf.length for leaf in leaves]
        if [leaf.offset for leaf in leaves] == [0, *ends[:-1]] and ends[-1:] == [size_bytes]:
            yield from ends


def iterate_leaves(find: Callable[[bytes], bytes | None], root: bytes, *, max_visits: int) -> Iterator[NewBlock]:
    """Yield the leaves of a file in order, from its nodes.

    Unlike ``object_leaves.py``, this function has no index that knows which blocks are leaves. It treats a block that
    is not found as a leaf, because the bytes of leaves are known only as pieces of the file. The caller hashes this
    piece to check that it is the leaf.

    Args:
        find: returns a block.
        root: multihash of the root, which is a node with links.
        max_visits: how many nodes and leaves may be visited. Without a limit, shared nodes of 0 bytes could be visited
            2**60 times.

    Raises:
        _NodesMissingError: a node is missing or is not a node of a file, or the limit is exceeded.
    """
    stack = [(CID(1, DAG_PB, root), -1)]
    offset = visits = 0
    while stack:
        cid, length = stack.pop()
        visits += 1
        if visits > max_visits:
            raise _NodesMissingError
        children = _children(find, cid) if cid.codec == DAG_PB else ()
        if children:
            if length not in (-1, sum(size for _, size in children)):
                raise _NodesMissingError
            stack.extend(reversed(children))
        elif 0 <= length <= MAX_LEAF_BYTES and cid.codec in (RAW, DAG_PB):
            form = LeafEncoding.RAW if cid.codec == RAW else LeafEncoding.UNIXFS_FILE
            yield NewBlock(cid.multihash, None, offset, length, int(form))
            offset += length
        else:
            raise _NodesMissingError


def _children(find: Callable[[bytes], bytes | None], cid: CID) -> Sequence[tuple[CID, int]]:
    """Return the links of a file's node, each with the number of file bytes below it; none for a leaf."""
    block = find(cid.multihash)
    if block is None:
        return ()
    try:
        node = decode_node(block)
        data = decode_unixfs(node)
    except InvalidDataError:
        return ()
    if not data.is_file or data.data:
        return ()
    return [(link.cid, size) for link, size in zip(node.links, data.block_sizes, strict=True)]
