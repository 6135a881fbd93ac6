"""Traversal of DAGs: reading nodes, resolving paths and visiting every block, with limits against hostile input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW, codec_name
from mlflow_ipfs.content.codecs import dag_pb
from mlflow_ipfs.content.codecs.data_paths import follow_data
from mlflow_ipfs.content.codecs.hamt import check_child_shard, find_in_shard, layout_of, split_shard
from mlflow_ipfs.content.codecs.links import DATA_CODECS, links
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData, decode_unixfs
from mlflow_ipfs.errors import InvalidDataError, InvalidPathError, NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_ipfs.content.blocks.base import BlockReader

MAX_DIRECTORY_DEPTH: Final = 2048  # Linux paths are not deeper: PATH_MAX is 4096 bytes
MAX_FILE_DEPTH: Final = 128  # a balanced file of 2**60 bytes has 8 levels, a trickle file a few dozen


@dataclass(frozen=True, slots=True)
class UnixFSNode:
    """A block decoded as UnixFS.

    Attributes:
        cid: the block's CID.
        block: the block's bytes.
        data: the UnixFS fields; a raw block is decoded as a file of its bytes.
        links: the block's links.
    """

    cid: CID
    block: bytes
    data: UnixFSData
    links: tuple[dag_pb.Link, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the file, or length of the symlink's target; 0 for a directory."""
        if self.data.size_bytes is not None:
            return self.data.size_bytes
        return 0 if self.data.is_directory else len(self.data.data or b"") + sum(self.data.block_sizes)

    @property
    def dag_bytes(self) -> int:
        """Cumulative size of this block and all blocks below it, the ``Tsize`` of links to this node."""
        return len(self.block) + sum(link.size_bytes or 0 for link in self.links)


def read_unixfs(reader: BlockReader, cid: CID) -> UnixFSNode:
    """Read and decode one block.

    Raises:
        NotFoundError: the reader does not have the block.
        IntegrityError: the block is damaged.
        InvalidDataError: the block is not UnixFS.
    """
    if cid.codec not in (RAW, DAG_PB):
        hint = "; name a path in it that leads to one" if cid.codec in DATA_CODECS else ""
        msg = f"{cid} has codec {codec_name(cid.codec)}, so it is neither a file nor a directory{hint}"
        raise InvalidDataError(msg)
    block = reader.get(cid)
    if cid.codec == RAW:
        return UnixFSNode(cid, block, UnixFSData(NodeType.FILE, block, len(block)), ())
    try:
        node = dag_pb.decode_node(block)
        return UnixFSNode(cid, block, decode_unixfs(node), node.links)
    except InvalidDataError as error:
        msg = f"the block {cid} is not UnixFS: {error}"
        raise InvalidDataError(msg) from error


def split_path(path: str) -> list[str]:
    """Split ``a/b/c`` into its names. Leading, trailing and repeated slashes are ignored.

    Raises:
        InvalidPathError: a part is ``.`` or ``..``, or contains a NUL character.
    """
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if part in (".", "..") or "\0" in part:
            msg = f"the path {path!r} contains {part!r}, which is not allowed in a content path"
            raise InvalidPathError(msg)
    return parts


def join_path(path: str, name: str) -> str:
    """Return the path of a name in the directory at ``path``, which is ``""`` for the root."""
    return f"{path}/{name}" if path else name


def encode_name(name: str) -> bytes:
    """Return the bytes of a name in a directory: UTF-8 in every locale, or the bytes that Python escaped.

    Raises:
        InvalidPathError: the name contains a surrogate that does not represent an escaped byte.
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        msg = f"{name!r} cannot be a name: it is not valid Unicode text"
        raise InvalidPathError(msg) from error


def encode_file_name(name: str) -> bytes:
    """Return the bytes of the name of a file or directory, after checking that the name is allowed.

    Raises:
        InvalidPathError: the name is empty or not Unicode text, or could refer to another directory.
    """
    encoded = encode_name(name)
    if not is_safe_name(encoded):
        msg = f"{name!r} cannot be a name in a directory: it must not be empty, '.' or '..', nor contain '/' or NUL"
        raise InvalidPathError(msg)
    return encoded


def decode_name(name: bytes) -> str:
    """Return the text of a name in a directory. ``encode_name`` restores the bytes, even if they are not UTF-8."""
    return name.decode("utf-8", "surrogateescape")


def find_link(reader: BlockReader, directory: UnixFSNode, name: str) -> dag_pb.Link:
    """Return the link with the given name in a directory.

    Raises:
        NotDirectoryError: the node is not a directory.
        NotFoundError: the directory does not contain the name.
        InvalidPathError: the name is not Unicode text.
    """
    wanted = encode_name(name)
    if directory.data.type is NodeType.DIRECTORY:
        for link in directory.links:
            if link.name == wanted:
                return link
    elif directory.data.type is NodeType.HAMT_SHARD:
        found = _find_in_hamt(reader, directory, wanted)
        if found is not None:
            return found
    else:
        msg = f"{directory.cid} is not a directory, so it has no entry {name!r}"
        raise NotDirectoryError(msg)
    msg = f"the directory {directory.cid} has no entry {name!r}"
    raise NotFoundError(msg)


def _find_in_hamt(reader: BlockReader, shard: UnixFSNode, name: bytes) -> dag_pb.Link | None:
    for depth in range(layout_of(shard.data).max_depth):
        link, is_value = find_in_shard(dag_pb.Node(shard.links, None), shard.data, name, depth)
        if link is None or is_value:
            return link
        shard = _read_shard(reader, link.cid, shard)
    return None


def _read_shard(reader: BlockReader, cid: CID, parent: UnixFSNode) -> UnixFSNode:
    shard = read_unixfs(reader, cid)
    check_child_shard(cid, fanout_of(shard.data), parent.data.fanout)
    return shard


def fanout_of(data: UnixFSData) -> int | None:
    """Return the fanout that a HAMT shard states, or None for every other node."""
    return (data.fanout or 0) if data.type is NodeType.HAMT_SHARD else None


def resolve(reader: BlockReader, cid: CID, path: str = "") -> CID:
    """Return the CID at a path below a root, through directories and through dag-cbor and dag-json data.

    Symlinks are not followed, as in every IPFS resolver.

    Raises:
        NotFoundError: a name or a block is missing. The message contains the whole path.
        NotDirectoryError: the path continues below a file, or below a value that is neither a map nor a list.
        InvalidDataError: a block is malformed, or has a codec without paths.
    """
    names = split_path(path)
    while names:
        try:
            if cid.codec in DATA_CODECS:
                cid, count = follow_data(cid, reader.get(cid), names)
            else:
                cid, count = find_link(reader, read_unixfs(reader, cid), names[0]).cid, 1
            names = names[count:]
        except (NotFoundError, NotDirectoryError) as error:
            msg = f"{error} (while following the path {path!r})"
            raise type(error)(msg) from error
    return cid


def iterate_directory(reader: BlockReader, directory: UnixFSNode) -> Iterator[dag_pb.Link]:
    """Yield the links of a directory under their real names, in the order of its blocks.

    Raises:
        NotDirectoryError: the node is not a directory.
        InvalidDataError: a name is not allowed in a directory, or occurs twice.
    """
    if not directory.data.is_directory:
        msg = f"{directory.cid} is not a directory"
        raise NotDirectoryError(msg)
    seen: set[bytes] = set()
    for link in directory.links if directory.data.type is NodeType.DIRECTORY else _iterate_hamt(reader, directory):
        check_name(directory.cid, link.name or b"", seen)
        yield link


def check_name(directory: CID, name: bytes, seen: set[bytes]) -> None:
    """Check the next name of a directory, and add it to ``seen``.

    Raises:
        InvalidDataError: the name is not allowed in a directory, or is in ``seen`` already.
    """
    if not is_safe_name(name) or name in seen:
        problem = "occurs twice" if name in seen else "is not a valid name"
        msg = (
            f"the directory {directory} is malformed: its entry {name!r} {problem}. Get the content from another source"
        )
        raise InvalidDataError(msg)
    seen.add(name)


def is_safe_name(name: bytes) -> bool:
    """Return whether a name is allowed in a directory, that is, cannot refer to another directory."""
    return bool(name) and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def _iterate_hamt(reader: BlockReader, root: UnixFSNode) -> Iterator[dag_pb.Link]:
    """Yield the links of a HAMT directory. Reads each shard once.

    Two positions in a HAMT have different names, so a valid HAMT does not link to the same shard twice. Without this
    check, a few blocks that link to each other twice would yield an astronomical number of names.
    """
    max_depth = layout_of(root.data).max_depth
    seen = SeenBlocks()
    shard, depth = root, 0
    below: list[tuple[CID, int]] = []
    while True:
        values, children = split_shard(dag_pb.Node(shard.links, None), shard.data)
        yield from values
        below.extend((child.cid, depth + 1) for child in reversed(children))
        if not below:
            return
        cid, depth = below.pop()
        if depth >= max_depth:
            msg = f"the HAMT directory {root.cid} has more than {max_depth} levels at {cid}"
            raise InvalidDataError(msg)
        if not seen.add(cid):
            msg = (
                f"the HAMT directory {root.cid} links to its shard {cid} twice, so it is malformed: "
                "a name has one position in a HAMT. Get the content from another source"
            )
            raise InvalidDataError(msg)
        shard = _read_shard(reader, cid, root)


def check_symlink(cid: CID, data: UnixFSData) -> bytes:
    """Return the target of a symlink.

    Raises:
        InvalidDataError: the target is empty or contains NUL, so that no system could create the symlink.
    """
    target = data.data or b""
    if not target or b"\0" in target:
        msg = f"the symlink {cid} has the target {decode_name(target)!r}, which is not a valid path"
        raise InvalidDataError(msg)
    return target


class DagWalk:
    """Walk over the blocks of a DAG: each block once, depth first, in link order.

    The walk does not read blocks. The caller takes a CID from the walk, gets its block, and calls ``descend`` with it
    before taking the next CID. The same bytes under two codecs are two blocks, because their links differ. The set of
    visited blocks takes at most 48 bytes per block, see ``SeenBlocks``.
    """

    def __init__(self, root: CID) -> None:
        self._seen = SeenBlocks()
        self._stack = [root]

    def __iter__(self) -> Iterator[CID]:
        while self._stack:
            cid = self._stack.pop()
            if self._seen.add(cid):
                yield cid

    def descend(self, cid: CID, block: bytes) -> None:
        """Visit the links of a block next.

        Raises:
            InvalidDataError: the links of the block cannot be determined.
        """
        self._stack.extend(reversed(links(cid, block)))


def walk_blocks(
    reader: BlockReader, root: CID, *, on_error: Callable[[CID, Exception], None] | None = None
) -> Iterator[tuple[CID, bytes]]:
    """Yield every block of a DAG with its CID, in the order of ``DagWalk``, each verified by the reader.

    Args:
        reader: the source of the blocks.
        root: the CID to start from.
        on_error: called for a block that cannot be read; the block and all blocks below it are then skipped. None
            raises the error.
    """
    walk = DagWalk(root)
    for cid in walk:
        try:
            block = reader.get(cid)
            walk.descend(cid, block)
        except (OSError, ValueError) as error:
            if on_error is None:
                raise
            on_error(cid, error)
            continue
        yield cid, block
