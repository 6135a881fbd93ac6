"""Entries: the files of the mutable file trees behind ``mfs://``.

Directories are implied by the entries in them. An entry with the name ``DIRECTORY_MARK`` records a directory without
files. A path is a string ``a/b/c`` without a leading or trailing slash. ``""`` is the top of a tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_ipfs.content.cid import CID

DIRECTORY_MARK: Final = "."  # no file can have this name; the CID of the entry is that of an empty directory


@dataclass(frozen=True, slots=True)
class MfsEntry:
    """One file of a mutable tree, or the mark of a directory that had no files when it was put.

    Attributes:
        root: name of the tree, the netloc of ``mfs://<root>/…``.
        path: the file's path below the root.
        cid: the file's content (UnixFS file or symlink).
        size_bytes: the file's size.
        dag_bytes: sum of the sizes of all blocks under ``cid``, the ``Tsize`` of a link to it.
        mtime_ns: time of the last write, in ns since 1970.
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

    @property
    def is_mark(self) -> bool:
        """True if the entry is not a file, but the mark of its directory."""
        return self.name == DIRECTORY_MARK


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
    """Permission to read ``cid`` below ``path`` as ``mfs://<root>/<path>/@<cid>``. Retains the CID like a pin."""

    root: str
    path: str
    cid: CID


class Entries(Protocol):
    """The mutable trees of one store. ``Publication.commit`` adds new entries."""

    def stat(self, root: str, path: str) -> MfsEntry | MfsDirectory | None:
        """Return the file or the implied directory at a path, or None."""

    def list(self, root: str, path: str) -> Sequence[MfsEntry | MfsDirectory]:
        """Return the files and directories directly in a directory, by name in byte order; [] if it does not exist."""

    def walk(self, root: str, path: str) -> Sequence[MfsEntry]:
        """Return the file at ``path``, or every file below it, from one snapshot, in order of path bytes."""

    def delete(self, root: str, path: str) -> int:
        """Delete the file at ``path`` and every file below it. Return the number of files; 0 is not an error."""

    def freeze(self, frozen: Frozen) -> None:
        """Permit reading a CID below a path. A second call is a no-op.

        Raises:
            NotFoundError: the root block of the CID is not in the store.
        """

    def unfreeze(self, frozen: Frozen) -> bool:
        """Withdraw a permission. Return whether it existed."""

    def is_frozen(self, frozen: Frozen) -> bool:
        """Return whether the CID may be read below the path."""

    def list_frozen(self) -> Iterator[Frozen]:
        """Yield every permission, in order of root and path."""
