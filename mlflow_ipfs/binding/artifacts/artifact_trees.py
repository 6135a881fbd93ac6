"""Frozen and mutable artifact trees, as the artifact repositories read them."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import check_path, join_path
from mlflow_ipfs.content.blocks.limited import LimitedReader, ReadLimitError
from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import read_unixfs, resolve
from mlflow_ipfs.content.names.entries import MfsDirectory
from mlflow_ipfs.errors import IsDirectoryError, NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.listing import Entry
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.names.entries import MfsEntry
    from mlflow_ipfs.content.store import ContentStore

MAX_SYMLINKS: Final = 40  # the limit of Linux
MAX_READY_BYTES: Final = 256 << 10  # of directory nodes: 40 ms of decoding; a directory of about 4,000 entries


@dataclass(frozen=True, slots=True)
class Item:
    """One artifact.

    Attributes:
        path: the path from the tree's root; ``""`` is the root itself.
        is_dir: True for a directory.
        size_bytes: size of a file; None for a directory.
    """

    path: str
    is_dir: bool
    size_bytes: int | None


class ArtifactTree(Protocol):
    """A readable tree of files. Paths have the form ``a/b/c`` and start at the tree's root."""

    def stat(self, path: str) -> Item:
        """Return the artifact at a path.

        Raises:
            NotFoundError: the path does not exist.
        """

    def list(self, path: str) -> list[Item]:
        """Return the entries of a directory.

        The list is empty for a file, and for a path that does not exist in a mutable tree.

        Raises:
            NotFoundError: the path does not exist in a frozen tree.
        """

    def local_path(self, path: str) -> Path | None:
        """Return the path of a read-only file with the content; None if the store has no such file, as for small files.

        Raises:
            NotFoundError: the path does not exist.
            IsDirectoryError: the path is a directory.
        """

    def ready_path(self, path: str) -> Path | None:
        """Return what ``local_path`` returns if that takes no time, else None. For event loops.

        Raises:
            NotFoundError: the path does not exist.
            IsDirectoryError: the path is a directory.
        """

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """Write a file's content to ``destination``.

        Args:
            path: the path of the file in the tree.
            destination: the local file to write.
            private: True if the destination is in a private view, which may share bytes with the store; False if it is
                the user's own file.

        Raises:
            NotFoundError: the path does not exist.
            IsDirectoryError: the path is a directory.
        """


@dataclass(frozen=True, slots=True)
class FrozenTree:
    """The content below a CID. Symlinks to files inside the same content are followed."""

    store: ContentStore
    cid: CID
    prefix: str = ""

    def stat(self, path: str) -> Item:
        """See ``ArtifactTree``."""
        path = check_path(path)
        return _item(path, self.store.stat(self.cid, join_path(self.prefix, path)))

    def list(self, path: str) -> list[Item]:
        """See ``ArtifactTree``."""
        path = check_path(path)
        try:
            entries = self.store.ls(self.cid, join_path(self.prefix, path))
        except NotDirectoryError:
            return []
        return [_item(join_path(path, entry.name), entry) for entry in entries]

    def local_path(self, path: str) -> Path | None:
        """See ``ArtifactTree``."""
        return self.store.local_path(self._find_file(path, self.store.blocks))

    def ready_path(self, path: str) -> Path | None:
        """See ``ArtifactTree``. No remote source is asked, and at most ``MAX_READY_BYTES`` of directories are read."""
        storage = self.store.storage
        try:
            cid = self._find_file(path, LimitedReader(storage.blocks, MAX_READY_BYTES))
        except ReadLimitError:
            return None
        except NotFoundError:
            if self.store.blocks is storage.blocks:
                raise
            return None  # a remote source may have it
        return storage.ready_file(cid)

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """See ``ArtifactTree``."""
        cid = self._find_file(path, self.store.blocks)
        shared = self.store.local_path(cid) if private else None
        if shared is not None:
            self.store.storage.link_file(shared, destination)
            return
        size_bytes = self.store.stat(cid).size_bytes
        with mlflow_compat.show_progress(f"Downloading {destination.name}", size_bytes) as progress:
            self.store.view(cid, dst=destination, progress=progress)

    def _find_file(self, path: str, reader: BlockReader) -> CID:
        """Return the CID of the file at a path.

        Raises:
            NotFoundError: the path does not exist, a symlink leads out of the content, or the chain of symlinks is too long.
            IsDirectoryError: the path is a directory.
        """
        current = join_path(self.prefix, check_path(path))
        for _ in range(MAX_SYMLINKS):
            node = read_unixfs(reader, resolve(reader, self.cid, current))
            if node.data.is_directory:
                msg = f"{join_path(str(self.cid), current)} is a directory, not a file; name a file in it"
                raise IsDirectoryError(msg)
            if node.data.type is not NodeType.SYMLINK:
                return node.cid
            current = self._follow(current, os.fsdecode(node.data.data or b""))
        msg = f"{join_path(str(self.cid), self.prefix, path)} cannot be read: it is a chain of more than {MAX_SYMLINKS} symlinks"
        raise NotFoundError(msg)

    def _follow(self, path: str, target: str) -> str:
        """Return the path that a symlink leads to.

        Raises:
            NotFoundError: the target is outside the content. A server must not send files of its own disk.
        """
        followed = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or followed == ".." or followed.startswith("../"):
            msg = f"{join_path(str(self.cid), path)} is a symlink to {target!r}, which is not in this content"
            raise NotFoundError(msg)
        return "" if followed == "." else followed


def _item(path: str, entry: Entry) -> Item:
    return Item(path, entry.is_dir, None if entry.is_dir else entry.size_bytes)


def _mutable_item(path: str, entry: MfsEntry | MfsDirectory) -> Item:
    if isinstance(entry, MfsDirectory):
        return Item(path, is_dir=True, size_bytes=None)
    return Item(path, is_dir=False, size_bytes=entry.size_bytes)


@dataclass(frozen=True, slots=True)
class MutableTree:
    """The files below a mutable path, and the content that is frozen below it as ``@<cid>``."""

    store: ContentStore
    location: MfsPath

    def at(self, path: str) -> MfsPath:
        """Return the mutable path of a path in this tree."""
        path = check_path(path)
        return self.location.join(path) if path else self.location

    def frozen_at(self, path: str) -> tuple[FrozenTree, str] | None:
        """Return the frozen tree that a path leads into, and the path in that tree; None if the path is mutable.

        Raises:
            NotFoundError: the path names a CID that is not frozen there.
        """
        found = self.store.files.split_frozen(self.at(path))
        return (FrozenTree(self.store, found[0]), found[1]) if found else None

    def stat(self, path: str) -> Item:
        """See ``ArtifactTree``."""
        path = check_path(path)
        if frozen := self.frozen_at(path):
            tree, inside = frozen
            item = tree.stat(inside)
            return Item(path, item.is_dir, item.size_bytes)
        return _mutable_item(path, self._entry(path))

    def list(self, path: str) -> list[Item]:
        """See ``ArtifactTree``."""
        path = check_path(path)
        if frozen := self.frozen_at(path):
            tree, inside = frozen
            found = tree.list(inside)
            return [Item(join_path(path, item.path.rpartition("/")[2]), item.is_dir, item.size_bytes) for item in found]
        return [_mutable_item(join_path(path, entry.name), entry) for entry in self.store.files.list(self.at(path))]

    def local_path(self, path: str) -> Path | None:
        """See ``ArtifactTree``."""
        tree, inside = self._file(path)
        return tree.local_path(inside)

    def ready_path(self, path: str) -> Path | None:
        """See ``ArtifactTree``."""
        tree, inside = self._file(path)
        return tree.ready_path(inside)

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """See ``ArtifactTree``."""
        tree, inside = self._file(path)
        tree.copy_file(inside, destination, private=private)

    def _file(self, path: str) -> tuple[FrozenTree, str]:
        """Return a frozen tree with the content of the file at a path, and the path in that tree."""
        if frozen := self.frozen_at(path):
            return frozen
        entry = self._entry(path)
        if isinstance(entry, MfsDirectory):
            msg = f"{self.at(path)} is a directory, not a file; name a file in it"
            raise IsDirectoryError(msg)
        return FrozenTree(self.store, entry.cid), ""

    def _entry(self, path: str) -> MfsEntry | MfsDirectory:
        entry = self.store.files.stat(self.at(path))
        if entry is None:
            msg = f"no artifact exists at {self.at(path)}"
            raise NotFoundError(msg)
        return entry
