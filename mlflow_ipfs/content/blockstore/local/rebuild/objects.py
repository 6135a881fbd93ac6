"""Blocks of an object: the bytes of one file, whose root's multihash is its name.

The leaves are found from the root's nodes; if these are lost, by cutting the file again in the ways in which
it may have been cut, until its root has that multihash; at last as an old index has them.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.interface import MAX_LEAF_BYTES, LeafForm
from mlflow_ipfs.content.blockstore.local.index import NewBlock
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.dagpb import decode_node
from mlflow_ipfs.content.file_reader import max_parts
from mlflow_ipfs.content.leaf_pipeline import hash_leaf, leaf_rows
from mlflow_ipfs.content.node_builder import NodeBuilder
from mlflow_ipfs.content.profiles import PROFILES
from mlflow_ipfs.content.read_ahead import map_ahead
from mlflow_ipfs.content.unixfs import decode_unixfs
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
    from mlflow_ipfs.content.blockstore.local.rebuild.file_view import FileView
    from mlflow_ipfs.content.node_builder import Subtree
    from mlflow_ipfs.content.profiles import Profile

_BATCH: Final = 2000
_LEAVES_A_THREAD: Final = 1  # at once: most files have few leaves, and those are large


class _NodesMissingError(Exception):
    """The nodes above the leaves are not all there."""


@dataclass(slots=True)
class _Tally:
    """Leaves that were looked at."""

    good: int = 0
    bad: int = 0
    bad_wrapped: int = 0

    @property
    def total(self) -> int:
        return self.good + self.bad


class ObjectReader:
    """Finds out what is in objects.

    Args:
        draft: the new index, which has the blocks of all packs already.
        cut_sizes: sizes that files may have been cut into, beside those of the profiles.
    """

    def __init__(self, draft: IndexDraft, cut_sizes: Iterable[int]) -> None:
        self._draft = draft
        usual = {profile.chunk_bytes for profile in PROFILES.values()}
        self._cut_sizes = [size for size in dict.fromkeys((*cut_sizes, *sorted(usual))) if 0 < size <= MAX_LEAF_BYTES]

    def add_object(
        self, place_id: int, file: FileView, root: bytes, old_rows: Callable[[], Iterable[NewBlock]], *, is_in_use: bool
    ) -> tuple[bool, str]:
        """Add what is good in an object.

        Args:
            place_id: the file's row.
            file: the file.
            root: the multihash in its name.
            old_rows: what an old index says of it; asked only if nothing else helps.
            is_in_use: whether it may stand for the whole file; what was set aside may not, and is marked damaged.

        Returns:
            Whether anything can be used, and what is wrong, if something is.
        """
        if self._add_single_leaf(place_id, file, root):
            return self._name(place_id, root, "", is_in_use=is_in_use)
        size_bytes = self._walked_size(root, file.size_bytes)
        if size_bytes is None:
            if self._add_by_cutting(place_id, file, root):
                return self._name(place_id, root, "", is_in_use=is_in_use)
            tally = self._add(place_id, file, old_rows())
            self._draft.mark_damaged(place_id)
            return tally.good > 0, "the nodes above its leaves are lost, and cutting it again gives another root"
        tally = self._add(place_id, file, iterate_leaves(self._draft.find, root, max_visits=max_parts(file.size_bytes)))
        problem = ""
        if tally.bad:
            problem = f"{tally.bad} of its {tally.total} leaves do not hash to their CIDs"
        elif size_bytes != file.size_bytes:
            problem = f"it has {file.size_bytes} bytes instead of {size_bytes}"
        # A lost node may look like a bad wrapped leaf.
        if tally.bad_wrapped and self._add_by_cutting(place_id, file, root):
            problem = ""
        return self._name(place_id, root, problem, is_in_use=is_in_use)

    def _name(self, place_id: int, root: bytes, problem: str, *, is_in_use: bool) -> tuple[bool, str]:
        if is_in_use:
            self._draft.name_object(place_id, root, is_damaged=bool(problem))
        return True, problem

    def _add_single_leaf(self, place_id: int, file: FileView, root: bytes) -> bool:
        """A file of one leaf, which is its root."""
        if file.size_bytes > MAX_LEAF_BYTES:
            return False
        data = file.read(0, file.size_bytes)
        for form in LeafForm:
            if hash_leaf(data, form, 1).cid.multihash == root:
                self._draft.add_leaves(place_id, [NewBlock(root, None, 0, len(data), int(form))])
                return True
        return False

    def _walked_size(self, root: bytes, expected_bytes: int) -> int | None:
        """Size of the file in bytes, if all nodes above its leaves are there."""
        end = 0
        try:
            for leaf in iterate_leaves(self._draft.find, root, max_visits=max_parts(expected_bytes)):
                end = leaf.offset + leaf.length
        except _NodesMissingError:
            return None
        return end

    def _add(self, place_id: int, file: FileView, leaves: Iterable[NewBlock]) -> _Tally:
        """Hash leaves and add them."""
        tally = _Tally()
        good: list[NewBlock] = []

        def check(leaf: NewBlock) -> tuple[NewBlock, bool]:
            return leaf, file.holds(leaf)

        with closing(map_ahead(check, leaves, batch=_LEAVES_A_THREAD)) as checked:  # its threads end before the file
            for leaf, is_good in checked:
                if is_good:
                    good.append(leaf)
                    if len(good) == _BATCH:
                        tally.good += self._flush(place_id, good)
                    continue
                tally.bad += 1
                tally.bad_wrapped += leaf.form == LeafForm.UNIXFS_FILE
                self._draft.add_bad(place_id, [leaf])
        tally.good += self._flush(place_id, good)
        return tally

    def _flush(self, place_id: int, leaves: list[NewBlock]) -> int:
        count = len(leaves)
        self._draft.add_leaves(place_id, [leaf for leaf in leaves if CID(1, RAW, leaf.multihash).identity_data is None])
        leaves.clear()
        return count

    def _add_by_cutting(self, place_id: int, file: FileView, root: bytes) -> bool:
        """Cut the file in every way in which it may have been cut. Returns whether one gave its root."""
        for size in self._cut_sizes:
            for profile in PROFILES.values():
                if self._add_cut(place_id, file, root, profile, size):
                    return True
        return False

    def _add_cut(self, place_id: int, file: FileView, root: bytes, profile: Profile, size: int) -> bool:
        form = LeafForm.RAW if profile.raw_leaves else LeafForm.UNIXFS_FILE

        def hash_cut(start: int) -> Subtree:
            return hash_leaf(file.read(start, size), form, profile.cid_version)

        starts = range(0, file.size_bytes, size)
        with closing(map_ahead(hash_cut, starts, batch=_LEAVES_A_THREAD)) as hashed:  # as above
            leaves = list(hashed)
        nodes: list[tuple[CID, bytes]] = []
        if not leaves:
            return False
        built = NodeBuilder(lambda cid, block: nodes.append((cid, block)), profile).build_file(leaves)
        if built.cid.multihash != root:
            return False
        rows = [
            NewBlock(leaf.cid.multihash, None, leaf.offset, leaf.length, int(leaf.form))
            for leaf in leaf_rows(leaves, form)
        ]
        self._draft.add_leaves(place_id, rows)
        for cid, block in nodes:
            self._draft.add_inline(cid.multihash, block, cid)
        return True


def iterate_leaves(find: Callable[[bytes], bytes | None], root: bytes, *, max_visits: int) -> Iterator[NewBlock]:
    """The leaves of a file in order, from its nodes.

    No index says here what is a leaf (``object_leaves.py`` asks one): what is not to be found is taken for one, because
    the blocks of leaves lie nowhere as they are. Whether it was one shows when the file's bytes are hashed.

    Args:
        find: gives a block.
        root: multihash of the root, which is a node with links.
        max_visits: how many nodes and leaves are visited; shared ones of 0 bytes could be visited 2**60 times.

    Raises:
        _NodesMissingError: a node is missing, or is no node of a file; or there are too many.
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
            form = LeafForm.RAW if cid.codec == RAW else LeafForm.UNIXFS_FILE
            yield NewBlock(cid.multihash, None, offset, length, int(form))
            offset += length
        else:
            raise _NodesMissingError


def _children(find: Callable[[bytes], bytes | None], cid: CID) -> Sequence[tuple[CID, int]]:
    """The links of a file's node, each with how many bytes of the file are below it; none for a leaf."""
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
