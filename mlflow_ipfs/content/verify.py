"""Verify: is every block of a DAG here and undamaged, and is a folder on disk the same?"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_ipfs.content.codecs import links
from mlflow_ipfs.content.cid import DAG_PB, RAW, CID
from mlflow_ipfs.content.dag import UnixFSNode, iterate_folder, read_unixfs
from mlflow_ipfs.content.dagpb import Node, decode_node
from mlflow_ipfs.content.file_reader import UnixFSFile
from mlflow_ipfs.content.hamt import split_shard
from mlflow_ipfs.content.source import SourceKind, list_folder, look_at
from mlflow_ipfs.content.unixfs import NodeType, decode_unixfs
from mlflow_ipfs.errors import InvalidDataError, MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_ipfs.content.blockstore.interface import BlockReader


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the CID says.

    Attributes:
        cid: the block concerned.
        path: where below the root it is, ``""`` for the root.
        reason: what is wrong with it.
    """

    cid: CID
    path: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        cid: the root.
        blocks: how many blocks were read and hashed.
        size_bytes: how many bytes those blocks have.
        problems: what is wrong; empty when all is well.
    """

    cid: CID
    blocks: int = 0
    size_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_dag(
    reader: BlockReader, root: CID, *, progress: Callable[[int], None] | None = None
) -> VerifyReport:
    """Read and hash every block below a root, once each, and go on after a bad one."""
    report = VerifyReport(root)
    seen: set[tuple[bytes, int]] = set()
    stack = [(root, "")]
    while stack:
        cid, path = stack.pop()
        if (cid.multihash, cid.codec) in seen:
            continue
        seen.add((cid.multihash, cid.codec))
        try:
            block = reader.get(cid)
            children = list(_children(cid, block, path))
        except (OSError, ValueError) as error:
            report.problems.append(Problem(cid, path, str(error)))
            continue
        report.blocks += 1
        report.size_bytes += len(block)
        if progress is not None:
            progress(len(block))
        stack.extend(reversed(children))
    return report


def _children(cid: CID, block: bytes, path: str) -> Iterator[tuple[CID, str]]:
    """The blocks below a block, with the path of the file or folder that each belongs to."""
    if cid.codec != DAG_PB:
        for child in links(cid, block):
            yield child, path
        return
    node = decode_node(block)
    for link in _named_links(node):
        name = os.fsdecode(link[1])
        yield link[0], f"{path}/{name}".lstrip("/") if name else path


def _named_links(node: Node) -> list[tuple[CID, bytes]]:
    try:
        data = decode_unixfs(node)
    except InvalidDataError:
        if node.data is not None:
            raise
        data = None  # dag-pb without UnixFS is sound IPLD; only its links matter here
    if data is not None and data.type is NodeType.HAMT_SHARD:
        values, children = split_shard(node, data)
        return [(link.cid, link.name or b"") for link in values + children]
    return [(link.cid, link.name or b"") for link in node.links]


def compare_with_disk(reader: BlockReader, root: CID, against: Path) -> list[Problem]:
    """Compare content with a file or folder on disk, leaf by leaf along the DAG.

    No record of the chunker is needed: the DAG itself says where the cuts are.

    Returns:
        A problem for each path that differs, is missing on disk, or is only on disk.
    """
    problems: list[Problem] = []
    stack = [(root, against, "")]
    while stack:
        cid, target, path = stack.pop()
        try:
            node = read_unixfs(reader, cid)
            if node.data.is_directory:
                stack.extend(_compare_folder(reader, node, target, path, problems))
            else:
                reason = _compare_single(reader, node, target)
                if reason:
                    problems.append(Problem(cid, path, reason))
        except (MlflowIpfsError, OSError) as error:
            problems.append(Problem(cid, path, str(error)))
    return problems


def _compare_folder(
    reader: BlockReader, node: UnixFSNode, target: Path, path: str, problems: list[Problem]
) -> list[tuple[CID, Path, str]]:
    if look_at(os.fsencode(target)).kind is not SourceKind.FOLDER:
        problems.append(Problem(node.cid, path, f"{str(target)!r} is no folder"))
        return []
    inside = {link.name or b"": link.cid for link in iterate_folder(reader, node)}
    for name in list_folder(os.fsencode(target)):
        if name not in inside:
            only = f"{path}/{os.fsdecode(name)}".lstrip("/")
            problems.append(Problem(node.cid, only, "is on disk, but not in the content"))
    below = []
    for name, cid in inside.items():
        text = os.fsdecode(name)
        below.append((cid, target / text, f"{path}/{text}".lstrip("/")))
    return below[::-1]


def _compare_single(reader: BlockReader, node: UnixFSNode, target: Path) -> str | None:
    """The difference between one file or symlink and what is on disk, or None."""
    source = look_at(os.fsencode(target))
    if node.data.type is NodeType.SYMLINK:
        same = source.kind is SourceKind.SYMLINK and os.readlink(source.path) == (node.data.data or b"")
        return None if same else f"{str(target)!r} is not the same symlink"
    if source.kind is not SourceKind.FILE:
        return f"{str(target)!r} is no file"
    offset = 0
    with target.open("rb") as file:
        for piece in UnixFSFile(reader, node.cid).pieces():
            if file.read(len(piece)) != piece:
                return f"differs from {str(target)!r} between bytes {offset} and {offset + len(piece)}"
            offset += len(piece)
        if file.read(1):
            return f"{str(target)!r} is longer than {offset} bytes"
    return None


def find_missing(reader: BlockReader, root: CID) -> CID | None:
    """The first block below a root that the reader does not have, or None if the DAG is whole.

    Interior blocks are read; leaves are only asked for.

    Raises:
        InvalidDataError: a block whose links cannot be known.
    """
    seen: set[bytes] = set()
    stack = [root]
    while stack:
        cid = stack.pop()
        if cid.multihash in seen:
            continue
        seen.add(cid.multihash)
        if not reader.has(cid):
            return cid
        try:
            stack.extend(links(cid, reader.get(cid) if cid.codec != RAW else b""))
        except NotFoundError:
            return cid
    return None
