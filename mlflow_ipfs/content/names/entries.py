"""Entries: the rows behind ``mfs://``, one for each file of a mutable file tree.

Directories are implied by the files in them, so an empty directory does not exist. A path is a
tuple-free string, ``a/b/c``, without leading or trailing slash; ``""`` is the root's top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class MfsEntry:
    """One file of a mutable tree.

    Attributes:
        root: name of the tree, the netloc of ``mfs://<root>/…``.
        path: the file's path below the root.
        cid: the file's content (UnixFS file or symlink).
        size_bytes: the file's size.
        dag_bytes: sum of the sizes of all blocks under ``cid``, the ``Tsize`` of a link to it.
        mtime_ns: when it was written, in ns since 1970.
    """

    root: str
    path: str
    cid: CID
    size_bytes: int
    dag_bytes: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class MfsDirectory:
    """A directory that the entries below it imply."""

    root: str
    path: str

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Frozen:
    """The permission to read ``cid`` below ``path`` as ``mfs://<root>/<path>/@<cid>``. Keeps the CID, as if pinned."""

    root: str
    path: str
    cid: CID


class Entries(Protocol):
    """The mutable trees of one store. New entries come in with ``Publication.commit``."""

    def stat(self, root: str, path: str) -> MfsEntry | MfsDirectory | None:
        """The file or the implied directory at a path, or None."""

    def list(self, root: str, path: str) -> Sequence[MfsEntry | MfsDirectory]:
        """The files and directories directly in a directory, by name in byte order; [] if there is none."""

    def walk(self, root: str, path: str) -> Sequence[MfsEntry]:
        """The file at ``path``, or every file below it, from one snapshot, in order of path bytes."""

    def delete(self, root: str, path: str) -> int:
        """Remove the file at ``path`` and every file below it. Returns how many; 0 is no error."""

    def freeze(self, frozen: Frozen) -> None:
        """Allow a CID below a path. Doing it twice is no error.

        Raises:
            NotFoundError: the root block of the CID is not in the store.
        """

    def unfreeze(self, frozen: Frozen) -> bool:
        """Withdraw that permission. Returns whether there was one."""

    def is_frozen(self, frozen: Frozen) -> bool:
        """Tell whether that CID may be read below that path."""

    def list_frozen(self) -> Iterator[Frozen]:
        """Everything frozen, in order of root and path."""
