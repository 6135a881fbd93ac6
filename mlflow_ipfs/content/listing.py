"""Entries: descriptions of files and directories inside content, and the listing of a directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import UnixFSNode, decode_name, iterate_directory, read_unixfs

if TYPE_CHECKING:
    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.codecs.dag_pb import Link

EntryKind = Literal["file", "directory", "symlink", "unknown"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or symlink inside content.

    Attributes:
        name: the name in its directory; ``""`` for a root.
        cid: the CID of the file, directory or symlink itself.
        kind: the kind of entry; ``unknown`` for data that is not UnixFS, or whose hash function is not supported.
        size_bytes: size of a file; 0 for a directory; for ``unknown``, the cumulative size that the link states.
    """

    name: str
    cid: CID
    kind: EntryKind
    size_bytes: int

    @property
    def is_dir(self) -> bool:
        """Whether the entry is a directory."""
        return self.kind == "directory"


def describe_node(name: str, node: UnixFSNode) -> Entry:
    """Return the entry that describes a node under the given name."""
    kind: EntryKind = "file"
    if node.data.is_directory:
        kind = "directory"
    elif node.data.type is NodeType.SYMLINK:
        kind = "symlink"
    return Entry(name, node.cid, kind, node.size_bytes)


def list_entries(reader: BlockReader, directory: UnixFSNode) -> list[Entry]:
    """Return the entries of a directory, by name in byte order.

    Raises:
        NotDirectoryError: the node is not a directory.
    """
    links = sorted(iterate_directory(reader, directory), key=lambda link: link.name or b"")
    known: dict[CID, Entry] = {}  # a large node with many names is decoded only once
    return [_describe_link(reader, link, known) for link in links]


def _describe_link(reader: BlockReader, link: Link, known: dict[CID, Entry]) -> Entry:
    name = decode_name(link.name or b"")
    if link.cid.codec not in (RAW, DAG_PB) or not link.cid.is_hash_supported:
        return Entry(name, link.cid, "unknown", link.size_bytes or 0)
    if link.cid.codec == RAW and link.size_bytes is not None:  # the link of a leaf states the size of the file
        return Entry(name, link.cid, "file", link.size_bytes)
    entry = known.get(link.cid)
    if entry is not None:
        return replace(entry, name=name)
    entry = known[link.cid] = describe_node(name, read_unixfs(reader, link.cid))
    return entry
