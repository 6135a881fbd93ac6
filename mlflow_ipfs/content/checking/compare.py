"""Comparison of content with a file or directory on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.checking.verify import Problem
from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import UnixFSNode, decode_name, iterate_directory, join_path, read_unixfs
from mlflow_ipfs.content.files.file_reader import UnixFSFile
from mlflow_ipfs.content.files.source import SourceKind, list_directory, stat_source
from mlflow_ipfs.content.files.source_reader import read_symlink
from mlflow_ipfs.errors import MlflowIpfsError, PolicyError, RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID

_ONLY_ON_DISK: Final = "is on disk, but not in the content"


class Comparison(NamedTuple):
    """Differences between content and disk.

    Attributes:
        problems: one for each path that differs, is missing on disk, or is only on disk.
        hidden_left_out: number of hidden names only on disk that were ignored.
    """

    problems: list[Problem]
    hidden_left_out: int


def compare_with_disk(
    reader: BlockReader, root: CID, against: Path, *, hidden: bool = True, not_content: frozenset[str] = frozenset()
) -> Comparison:
    """Compare content with a file or directory on disk, leaf by leaf along the DAG.

    The chunker need not be known: the sizes of the leaves are taken from the DAG.

    Args:
        reader: source of the blocks.
        root: root of the content.
        against: path of the file or directory.
        hidden: whether hidden names that are only on disk are differences. A hidden name starts with a dot. Hidden
            names in the content are always compared.
        not_content: paths on disk, relative to ``against``, that are ignored if they are not in the content.
    """
    problems: list[Problem] = []
    stack = [(root, against, "")]
    while stack:
        cid, target, path = stack.pop()
        try:
            node = read_unixfs(reader, cid)
            if node.data.is_directory:
                stack.extend(_compare_directory(reader, node, target, path, problems=problems))
            else:
                reason = _compare_single(reader, node, target)
                if reason:
                    problems.append(Problem(cid, path, reason))
        except (PolicyError, RemoteError):
            raise  # content that cannot be read or reached now is not damaged
        except (MlflowIpfsError, OSError) as error:
            problems.append(Problem(cid, path, str(error)))
    wanted = [problem for problem in problems if not (_is_only_on_disk(problem) and problem.path in not_content)]
    if hidden:
        return Comparison(wanted, 0)
    visible = [problem for problem in wanted if not (_is_only_on_disk(problem) and _is_hidden(problem.path))]
    return Comparison(visible, len(wanted) - len(visible))


def _is_only_on_disk(problem: Problem) -> bool:
    return problem.reason == _ONLY_ON_DISK


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _compare_directory(
    reader: BlockReader, node: UnixFSNode, target: Path, path: str, *, problems: list[Problem]
) -> list[tuple[CID, Path, str]]:
    if stat_source(os.fsencode(target)).kind is not SourceKind.DIRECTORY:
        problems.append(Problem(node.cid, path, f"{str(target)!r} is not a directory"))
        return []
    entries = {link.name or b"": link.cid for link in iterate_directory(reader, node)}
    for name in list_directory(os.fsencode(target)):
        if name not in entries:
            extra_path = join_path(path, decode_name(name))
            problems.append(Problem(node.cid, extra_path, _ONLY_ON_DISK))
    below = [(cid, target / os.fsdecode(name), join_path(path, decode_name(name))) for name, cid in entries.items()]
    return below[::-1]


def _compare_single(reader: BlockReader, node: UnixFSNode, target: Path) -> str | None:
    """Return the difference between one file or symlink and the disk, or None if they are the same."""
    source = stat_source(os.fsencode(target))
    if node.data.type is NodeType.SYMLINK:
        same = source.kind is SourceKind.SYMLINK and read_symlink(source) == (node.data.data or b"")
        return None if same else f"{str(target)!r} is not the same symlink"
    if source.kind is not SourceKind.FILE:
        return f"{str(target)!r} is not a file"
    offset = 0
    with target.open("rb") as file:
        for piece in UnixFSFile(reader, node.cid).pieces():
            if file.read(len(piece)) != piece:
                return f"differs from {str(target)!r} between bytes {offset} and {offset + len(piece)}"
            offset += len(piece)
        if file.read(1):
            return f"{str(target)!r} is longer than {offset} bytes"
    return None
