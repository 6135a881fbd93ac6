"""Checks of single blocks: that a block is what the links to it and the readers expect.

The readers call the same functions: ``split_shard``, ``check_child_shard``, ``part_bounds``, ``check_parts``,
``check_name`` and ``check_symlink``. Properties of several blocks together, such as the number of levels of a file,
are accumulated in a ``Parent``.
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

_MAX_PATH_CHARACTERS: Final = 4096  # of a path in a report; the limit of Linux
NO_FILE: Final = -1  # the size of a UnixFS node that is not a file
NO_UNIXFS: Final = -2  # the size of a block that is neither a file, a directory nor a symlink

Names: TypeAlias = "tuple[Names, bytes] | None"  # the path of a directory and a name in it; None for the root


class Role(Enum):
    """Role of a block for the block that links to it."""

    ROOT = "root"  # root of the verification; any block is valid
    LINKED = "linked"  # linked by data that is not UnixFS; any block is valid, even a part of a file or directory
    ENTRY = "entry"  # entry of a directory
    PART = "part"  # part of a file
    SHARD = "shard"  # child shard of a HAMT


class Visit(NamedTuple):
    """Block to check. A tuple, because there are many of them.

    Attributes:
        cid: CID of the block.
        role: role that the block must have.
        path: path of the block below the root.
        parent: parent that the properties of this block are added to.
        size_bytes: number of file bytes in this block according to its parent.
        below_bytes: total size of the blocks from here on according to the link, in bytes. An estimate; 0 if unknown.
        position: of a child shard, its position in its HAMT, or None if unknown.
    """

    cid: CID
    role: Role = Role.ROOT
    path: Names = None
    parent: Parent | None = None
    size_bytes: int | None = None
    below_bytes: int = 0
    position: ShardPosition | None = None

    @property
    def key(self) -> tuple[int, bytes]:
        """Key of the block. It includes the codec, because the same data under another codec has other links."""
        return self.cid.codec, self.cid.multihash


def path_text(path: Names) -> str:
    """Return a path as text. A path that exceeds the limit of Linux is shortened to its end."""
    names: list[str] = []
    length = 0
    while path is not None and length <= _MAX_PATH_CHARACTERS:
        path, name = path
        names.append(decode_name(name)[-_MAX_PATH_CHARACTERS:])
        length += len(names[-1]) + 1
    text = "/".join(reversed(names))
    return text if path is None and len(text) <= _MAX_PATH_CHARACTERS else f"…{text[-_MAX_PATH_CHARACTERS:]}"


class Parent:
    """File, directory or shard that has blocks below it, with the properties of all these blocks together.

    Attributes:
        size_bytes: number of file bytes in and below it, or ``NO_FILE``.
        fanout: fanout of a HAMT shard, else None.
        position: position of a HAMT shard that its names were checked against, or None if they were not checked.
        is_child_shard: whether it is part of the directory above it.
        levels: for a file, the number of levels of blocks; for a directory, the number of levels of directories below.
        count: for a file, the number of leaves; for a directory, the number of entries below it. Each leaf or entry is
            counted as often as it occurs.
        own_count: for a directory, the number of its own entries.
        is_too_long: whether the file was already reported as having too many leaves.
        error: error in the block itself, if the blocks below it are checked nevertheless.
    """

    __slots__ = (
        "count",
        "error",
        "fanout",
        "is_child_shard",
        "is_too_long",
        "levels",
        "own_count",
        "position",
        "size_bytes",
    )

    def __init__(self, size_bytes: int, count: int, *, levels: int = 0) -> None:
        self.size_bytes = size_bytes
        self.fanout: int | None = None
        self.position: ShardPosition | None = None
        self.is_child_shard = False
        self.levels = levels
        self.count = self.own_count = count
        self.is_too_long = False
        self.error: InvalidDataError | None = None

    @property
    def is_file(self) -> bool:
        """Whether this is a file and not a directory."""
        return self.size_bytes >= 0

    def add(self, child: Parent) -> None:
        """Add the properties of a block below this one. Called once for each link to it."""
        if self.is_file and child.is_file:
            self.levels = max(self.levels, child.levels + 1)
            self.count += child.count - 1
        elif not self.is_file and not child.is_file:
            self.levels = max(self.levels, child.levels + (not child.is_child_shard))
            self.count += child.count
            if child.is_child_shard:
                self.own_count += child.own_count

    def check_levels(self, cid: CID) -> None:
        """Check the number of levels, after all blocks below were added.

        Only a block with exactly one level too many is reported, and not the blocks above it.

        Raises:
            InvalidDataError: the readers would refuse the file or directory.
        """
        if self.is_file and self.levels == MAX_FILE_DEPTH + 1:
            msg = f"the file {cid} has more than {MAX_FILE_DEPTH} levels"
            raise InvalidDataError(msg)
        if not self.is_file and self.levels == MAX_DIRECTORY_DEPTH + 1 and not self.is_child_shard:
            msg = f"directories are nested deeper than {MAX_DIRECTORY_DEPTH} levels"
            raise InvalidDataError(msg)

    def check_as(self, visit: Visit) -> None:
        """Check the whole file against the role of the link to it, after all blocks below were added.

        Raises:
            InvalidDataError: the readers would refuse the file.
        """
        if self.is_file and visit.role is not Role.PART and not self.is_too_long:
            try:
                check_parts(visit.cid, self.count, self.size_bytes)
            except InvalidDataError:
                self.is_too_long = True  # report the file only once
                raise


def check_role(visit: Visit, found: int | Parent | None) -> None:
    """Check that a block has the role that the link to it requires. None means a block that was already reported.

    Raises:
        InvalidDataError: the block does not have this role.
    """
    if found is None or visit.role in (Role.ROOT, Role.LINKED):
        return
    size_bytes = found if isinstance(found, int) else found.size_bytes
    if visit.role is Role.PART:
        if size_bytes != visit.size_bytes:
            held = "no bytes" if size_bytes < 0 else f"{size_bytes} bytes"
            msg = f"{visit.cid} contains {held} of a file, but the node above it states {visit.size_bytes} bytes"
            raise InvalidDataError(msg)
    elif visit.role is Role.SHARD:
        parent = visit.parent
        expected = None if parent is None else parent.fanout
        check_child_shard(visit.cid, None if isinstance(found, int) else found.fanout, expected)
    elif size_bytes == NO_UNIXFS:
        msg = f"{visit.cid} is an entry of a directory, but not a UnixFS file, directory or symlink"
        raise InvalidDataError(msg)
    if isinstance(found, Parent) and found.position is not None:
        _check_shard_position(visit, found)


def shard_position(visit: Visit, fanout: int | None) -> ShardPosition | None:
    """Return the position of a shard in its HAMT, or None if it is unknown or the block is not a shard."""
    if fanout is None or visit.role in (Role.LINKED, Role.PART):
        return None
    return visit.position if visit.role is Role.SHARD else ShardPosition(fanout)


def _check_shard_position(visit: Visit, shard: Parent) -> None:
    position = shard_position(visit, shard.fanout)
    if position is not None and position != shard.position:
        msg = f"the HAMT shard {visit.cid} is linked at two positions of HAMTs, but its names fit only one of them"
        raise InvalidDataError(msg)


def check_block(visit: Visit, block: bytes) -> tuple[int | Parent, list[Visit]]:
    """Decode a block and check it by itself.

    Returns:
        A tuple of the result and the blocks below. The result is the number of file bytes in the block, ``NO_FILE`` or
        ``NO_UNIXFS`` if the block is a leaf or not UnixFS. Otherwise it is the ``Parent`` that the properties of the
        blocks below must be added to.

    Raises:
        InvalidDataError: the readers would refuse the block.
    """
    cid = visit.cid
    if cid.codec == RAW:
        return len(block), []
    if cid.codec != DAG_PB:
        return NO_UNIXFS, [Visit(child, Role.LINKED, visit.path) for child in links(cid, block)]
    node = decode_node(block)
    if node.data is None:  # dag-pb without UnixFS is valid IPLD; only its links are checked
        return NO_UNIXFS, [Visit(link.cid, Role.LINKED, visit.path) for link in node.links]
    data = decode_unixfs(node)
    if data.is_file:
        return _check_file(visit, node, data)
    if data.is_directory:
        return _check_directory(visit, node, data)
    below = [Visit(link.cid, Role.LINKED, visit.path) for link in node.links]
    if data.type is NodeType.SYMLINK:
        check_symlink(cid, data)
        return NO_FILE, below
    if visit.role is not Role.LINKED:
        msg = f"{cid} cannot be read: it is UnixFS metadata, neither a file nor a directory"
        raise InvalidDataError(msg)
    return NO_UNIXFS, below


def _check_file(visit: Visit, node: Node, data: UnixFSData) -> tuple[int | Parent, list[Visit]]:
    size_bytes = part_bounds(visit.cid, data)[-1]
    if not node.links:
        return size_bytes, []
    parent = Parent(size_bytes, len(node.links) + bool(data.data), levels=2)
    parts = zip(node.links, data.block_sizes, strict=True)
    return parent, [Visit(link.cid, Role.PART, visit.path, parent, size, link.size_bytes or 0) for link, size in parts]


def _check_directory(visit: Visit, node: Node, data: UnixFSData) -> tuple[Parent, list[Visit]]:
    fanout = fanout_of(data)
    entries, shards = split_shard(node, data) if fanout is not None else (node.links, [])
    parent = Parent(NO_FILE, len(entries))
    parent.is_child_shard = visit.role is Role.SHARD
    parent.fanout, parent.position = fanout, shard_position(visit, fanout)
    positions: list[ShardPosition | None] = [None] * len(shards)
    if parent.position is not None:
        try:
            positions[:] = check_names_of_shard(node, data, parent.position)
        except InvalidDataError as error:
            parent.error = error
    below = [
        Visit(link.cid, Role.SHARD, visit.path, parent, None, 0, position)
        for link, position in zip(shards, positions, strict=True)
    ]
    seen: set[bytes] = set()
    for link in entries:
        name = link.name or b""
        check_name(visit.cid, name, seen)
        below.append(Visit(link.cid, Role.ENTRY, (visit.path, name), parent, None, link.size_bytes or 0))
    return parent, below
