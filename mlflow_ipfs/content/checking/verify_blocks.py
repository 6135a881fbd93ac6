"""Checks of single blocks: is a block what the blocks that link to it, and the readers, take it for?

The checks are functions that the readers call, too: ``split_shard``, ``check_child_shard``, ``part_bounds``,
``check_parts``, ``check_name`` and ``check_symlink``. What holds for several blocks together, such as the number of
levels of a file, is added up in a ``Parent``.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.content.codecs.hamt import ShardPosition, check_child_shard, check_names_of_shard, split_shard
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.content.codecs.unixfs import NodeType, decode_unixfs
from mlflow_ipfs.content.dag import (
    MAX_DIRECTORY_DEPTH,
    MAX_FILE_DEPTH,
    check_name,
    check_symlink,
    decode_name,
    fanout_of,
)
from mlflow_ipfs.content.files.file_reader import check_parts, part_bounds
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from mlflow_ipfs.content.codecs.dag_pb import Node
    from mlflow_ipfs.content.codecs.unixfs import UnixFSData

_MAX_PATH_CHARACTERS: Final = 4096  # of a path in a report; Linux has no longer ones
NO_FILE: Final = -1  # the size of a UnixFS node that is not a file
NO_UNIXFS: Final = -2  # the size of a block that is neither a file, a directory nor a symlink

Names: TypeAlias = "tuple[Names, bytes] | None"  # the path of the directory, and a name in it; None for the root


class Role(Enum):
    """What a block is for the block that links to it."""

    ROOT = "root"  # the block that is verified: anything
    LINKED = "linked"  # linked by data that is not UnixFS: anything, even a part of a file or directory
    ENTRY = "entry"  # under a name in a directory
    PART = "part"  # a part of a file
    SHARD = "shard"  # a child shard of a HAMT


class Visit(NamedTuple):
    """A block to check. A tuple, because there are many.

    Attributes:
        cid: the block.
        role: what it must be.
        path: where below the root it is.
        parent: what the facts of this block are added to.
        size_bytes: what its parent states that it holds of a file.
        below_bytes: what the link states of the size of all blocks from here on: a guess, 0 where it states nothing.
        place: of a child shard, where it is in its HAMT; None where that is not known.
    """

    cid: CID
    role: Role = Role.ROOT
    path: Names = None
    parent: Parent | None = None
    size_bytes: int | None = None
    below_bytes: int = 0
    place: ShardPosition | None = None

    @property
    def key(self) -> tuple[int, bytes]:
        """The same bytes under two codecs are two blocks: they do not link to the same things."""
        return self.cid.codec, self.cid.multihash


def path_text(path: Names) -> str:
    """Return a path as text; of one that is too long for any system, only its end."""
    names: list[str] = []
    length = 0
    while path is not None and length <= _MAX_PATH_CHARACTERS:
        path, name = path
        names.append(decode_name(name)[-_MAX_PATH_CHARACTERS:])
        length += len(names[-1]) + 1
    text = "/".join(reversed(names))
    return text if path is None and len(text) <= _MAX_PATH_CHARACTERS else f"…{text[-_MAX_PATH_CHARACTERS:]}"


class Parent:
    """A file, directory or shard that has blocks below it, and what was found out about all of these together.

    Attributes:
        size_bytes: how much of a file it holds, or ``NO_FILE``.
        fanout: of a HAMT shard.
        place: of a HAMT shard, where its names belong; None if that was not checked.
        is_child_shard: whether it belongs to the directory above it.
        levels: of a file, how many levels of blocks it has; of a directory, how many levels of directories below it.
        count: of a file, its leaves; of a directory, the entries below it. Each is counted as often as it occurs.
        own_count: of a directory, its own entries.
        fault: what is wrong with the block, if what is below it is checked nevertheless.
    """

    __slots__ = (
        "count",
        "fanout",
        "fault",
        "is_child_shard",
        "is_too_long",
        "levels",
        "own_count",
        "place",
        "size_bytes",
    )

    def __init__(self, size_bytes: int, count: int, *, levels: int = 0) -> None:
        self.size_bytes = size_bytes
        self.fanout: int | None = None
        self.place: ShardPosition | None = None
        self.is_child_shard = False
        self.levels = levels
        self.count = self.own_count = count
        self.is_too_long = False
        self.fault: InvalidDataError | None = None

    @property
    def is_file(self) -> bool:
        """Whether this is a file, and not a directory."""
        return self.size_bytes >= 0

    def add(self, child: Parent) -> None:
        """Add what was found out about a block below this one, for one link to it."""
        if self.is_file and child.is_file:
            self.levels = max(self.levels, child.levels + 1)
            self.count += child.count - 1
        elif not self.is_file and not child.is_file:
            self.levels = max(self.levels, child.levels + (not child.is_child_shard))
            self.count += child.count
            if child.is_child_shard:
                self.own_count += child.own_count

    def check_levels(self, cid: CID) -> None:
        """Check the number of levels, once all below is added. What is above a block with one too many is not named.

        Raises:
            InvalidDataError: the readers would refuse it.
        """
        if self.is_file and self.levels == MAX_FILE_DEPTH + 1:
            msg = f"the file {cid} has more than {MAX_FILE_DEPTH} levels"
            raise InvalidDataError(msg)
        if not self.is_file and self.levels == MAX_DIRECTORY_DEPTH + 1 and not self.is_child_shard:
            msg = f"directories are nested deeper than {MAX_DIRECTORY_DEPTH} levels"
            raise InvalidDataError(msg)

    def check_as(self, visit: Visit) -> None:
        """Check what a link to this block asks of it as a whole, once all below is added.

        Raises:
            InvalidDataError: the readers would refuse it.
        """
        if self.is_file and visit.role is not Role.PART and not self.is_too_long:
            try:
                check_parts(visit.cid, self.count, self.size_bytes)
            except InvalidDataError:
                self.is_too_long = True  # named once
                raise


def check_role(visit: Visit, found: int | Parent | None) -> None:
    """Check that a block is what the link to it needs; None stands for a block that was named already.

    Raises:
        InvalidDataError: it is something else.
    """
    if found is None or visit.role in (Role.ROOT, Role.LINKED):
        return
    size_bytes = found if isinstance(found, int) else found.size_bytes
    if visit.role is Role.PART:
        if size_bytes != visit.size_bytes:
            held = "nothing" if size_bytes < 0 else f"{size_bytes} bytes"
            msg = f"{visit.cid} holds {held} of a file, and the node above it says {visit.size_bytes} bytes"
            raise InvalidDataError(msg)
    elif visit.role is Role.SHARD:
        parent = visit.parent
        wanted = None if parent is None else parent.fanout
        check_child_shard(visit.cid, None if isinstance(found, int) else found.fanout, wanted)
    elif size_bytes == NO_UNIXFS:
        msg = f"{visit.cid} has a name in a directory, and is not a UnixFS file, directory or symlink"
        raise InvalidDataError(msg)
    if isinstance(found, Parent) and found.place is not None:
        _check_place(visit, found)


def place_of(visit: Visit, fanout: int | None) -> ShardPosition | None:
    """Return where in its HAMT a shard is, None if that is not known."""
    if fanout is None or visit.role in (Role.LINKED, Role.PART):
        return None
    return visit.place if visit.role is Role.SHARD else ShardPosition(fanout)


def _check_place(visit: Visit, shard: Parent) -> None:
    place = place_of(visit, shard.fanout)
    if place is not None and place != shard.place:
        msg = f"the HAMT shard {visit.cid} is linked in two places, and its names can belong to one place only"
        raise InvalidDataError(msg)


def take_apart(visit: Visit, block: bytes) -> tuple[int | Parent, list[Visit]]:
    """Check a block by itself.

    Returns:
        How much of a file it holds, for a block with nothing below it and for data that is not UnixFS; else the
        ``Parent`` to add what is below to. And the blocks below it.

    Raises:
        InvalidDataError: the readers would refuse the block.
    """
    cid = visit.cid
    if cid.codec == RAW:
        return len(block), []
    if cid.codec != DAG_PB:
        return NO_UNIXFS, [Visit(child, Role.LINKED, visit.path) for child in links(cid, block)]
    node = decode_node(block)
    if node.data is None:  # dag-pb without UnixFS is sound IPLD; only its links matter here
        return NO_UNIXFS, [Visit(link.cid, Role.LINKED, visit.path) for link in node.links]
    data = decode_unixfs(node)
    if data.is_file:
        return _take_file_apart(visit, node, data)
    if data.is_directory:
        return _take_directory_apart(visit, node, data)
    below = [Visit(link.cid, Role.LINKED, visit.path) for link in node.links]
    if data.type is NodeType.SYMLINK:
        check_symlink(cid, data)
        return NO_FILE, below
    if visit.role is not Role.LINKED:
        msg = f"{cid} is UnixFS metadata, neither a file nor a directory, and cannot be read"
        raise InvalidDataError(msg)
    return NO_UNIXFS, below


def _take_file_apart(visit: Visit, node: Node, data: UnixFSData) -> tuple[int | Parent, list[Visit]]:
    size_bytes = part_bounds(visit.cid, data)[-1]
    if not node.links:
        return size_bytes, []
    parent = Parent(size_bytes, len(node.links) + bool(data.data), levels=2)
    parts = zip(node.links, data.block_sizes, strict=True)
    return parent, [Visit(link.cid, Role.PART, visit.path, parent, size, link.size_bytes or 0) for link, size in parts]


def _take_directory_apart(visit: Visit, node: Node, data: UnixFSData) -> tuple[Parent, list[Visit]]:
    fanout = fanout_of(data)
    entries, shards = split_shard(node, data) if fanout is not None else (node.links, [])
    parent = Parent(NO_FILE, len(entries))
    parent.is_child_shard = visit.role is Role.SHARD
    parent.fanout, parent.place = fanout, place_of(visit, fanout)
    places: list[ShardPosition | None] = [None] * len(shards)
    if parent.place is not None:
        try:
            places[:] = check_names_of_shard(node, data, parent.place)
        except InvalidDataError as error:
            parent.fault = error
    below = [
        Visit(link.cid, Role.SHARD, visit.path, parent, None, 0, place)
        for link, place in zip(shards, places, strict=True)
    ]
    seen: set[bytes] = set()
    for link in entries:
        name = link.name or b""
        check_name(visit.cid, name, seen)
        below.append(Visit(link.cid, Role.ENTRY, (visit.path, name), parent, None, link.size_bytes or 0))
    return parent, below
