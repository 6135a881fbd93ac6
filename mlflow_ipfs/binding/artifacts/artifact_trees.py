"""Artifacts as trees: what the artifact repositories read, whether frozen or mutable."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import check_path, join_path
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.names.entries import MfsDirectory
from mlflow_ipfs.errors import IsDirectoryError, NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.listing import Entry
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.names.entries import MfsEntry
    from mlflow_ipfs.content.store import ContentStore

MAX_SYMLINKS: Final = 40  # as Linux


@dataclass(frozen=True, slots=True)
class Item:
    """One artifact.

    Attributes:
        path: where it is, from the tree's root; ``""`` is the root itself.
        size_bytes: size of a file; None for a directory.
    """

    path: str
    is_dir: bool
    size_bytes: int | None


class ArtifactTree(Protocol):
    """A tree of files that can be read. Paths are ``a/b/c``, from the tree's root."""

    def stat(self, path: str) -> Item:
        """What is at a path.

        Raises:
            NotFoundError: nothing.
        """

    def list(self, path: str) -> list[Item]:
        """What is directly in a directory. Of a file, or of nothing in a mutable tree, an empty list.

        Raises:
            NotFoundError: nothing is there, in a tree that can't change.
        """

    def local_path(self, path: str, *, wait: bool = True) -> Path | None:
        """A read-only file that is the content, or None if there is none, as for small files.

        Args:
            path: where the file is.
            wait: False: as ``ContentStore.local_path``.

        Raises:
            NotFoundError: nothing is there.
            IsDirectoryError: a directory is there.
        """

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """Write a file's content to ``destination``.

        Args:
            path: where the file is.
            destination: where it goes.
            private: the destination is a private view, which may share bytes with the store; else
                it is the user's own file.

        Raises:
            NotFoundError: nothing is there.
            IsDirectoryError: a directory is there.
        """


@dataclass(frozen=True, slots=True)
class FrozenTree:
    """The content below a CID. A symlink counts as the file that it leads to, inside the same content."""

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

    def local_path(self, path: str, *, wait: bool = True) -> Path | None:
        """See ``ArtifactTree``."""
        return self.store.local_path(self._find_file(path), wait=wait)

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """See ``ArtifactTree``."""
        cid = self._find_file(path)
        shared = self.store.local_path(cid) if private else None
        if shared is not None:
            self.store.storage.link_file(shared, destination)
            return
        size_bytes = self.store.stat(cid).size_bytes
        with mlflow_compat.show_progress(f"Downloading {destination.name}", size_bytes) as progress:
            self.store.view(cid, dst=destination, progress=progress)

    def _find_file(self, path: str) -> CID:
        """The CID of the file at a path.

        Raises:
            NotFoundError: nothing is there, or a symlink that leads out of the content.
            IsDirectoryError: a directory is there.
        """
        place = join_path(self.prefix, check_path(path))
        for _ in range(MAX_SYMLINKS):
            entry = self.store.stat(self.cid, place)
            if entry.is_dir:
                msg = f"{join_path(str(self.cid), place)} is a directory, not a file"
                raise IsDirectoryError(msg)
            if entry.kind != "symlink":
                return entry.cid
            target = read_unixfs(self.store.storage.blocks, entry.cid).data.data or b""
            place = self._follow(place, os.fsdecode(target))
        msg = f"{join_path(str(self.cid), self.prefix, path)} is a chain of more than {MAX_SYMLINKS} symlinks"
        raise NotFoundError(msg)

    def _follow(self, place: str, target: str) -> str:
        """Where a symlink leads. Never out of the content: a server would hand out files of its own disk."""
        followed = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if target.startswith("/") or followed == ".." or followed.startswith("../"):
            msg = f"{join_path(str(self.cid), place)} is a symlink to {target!r}, which is not in this content"
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
    """The files below a mutable path, and what is frozen below it as ``@<cid>``."""

    store: ContentStore
    location: MfsPath

    def at(self, path: str) -> MfsPath:
        """The place of a path of this tree in the mutable tree."""
        path = check_path(path)
        return self.location.join(path) if path else self.location

    def frozen_at(self, path: str) -> tuple[FrozenTree, str] | None:
        """The frozen tree that a path leads into, and the path in it; None if it leads into none.

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
        entry = self.store.files.stat(self.at(path))
        if entry is None:
            msg = f"there is no artifact at {self.at(path)}"
            raise NotFoundError(msg)
        return _mutable_item(path, entry)

    def list(self, path: str) -> list[Item]:
        """See ``ArtifactTree``."""
        path = check_path(path)
        if frozen := self.frozen_at(path):
            tree, inside = frozen
            found = tree.list(inside)
            return [Item(join_path(path, item.path.rpartition("/")[2]), item.is_dir, item.size_bytes) for item in found]
        return [_mutable_item(join_path(path, entry.name), entry) for entry in self.store.files.list(self.at(path))]

    def local_path(self, path: str, *, wait: bool = True) -> Path | None:
        """See ``ArtifactTree``."""
        tree, inside = self._file(path)
        return tree.local_path(inside, wait=wait)

    def copy_file(self, path: str, destination: Path, *, private: bool) -> None:
        """See ``ArtifactTree``."""
        tree, inside = self._file(path)
        tree.copy_file(inside, destination, private=private)

    def _file(self, path: str) -> tuple[FrozenTree, str]:
        """The content of the file at a path."""
        if frozen := self.frozen_at(path):
            return frozen
        entry = self.store.files.stat(self.at(path))
        if entry is None:
            msg = f"there is no artifact at {self.at(path)}"
            raise NotFoundError(msg)
        if isinstance(entry, MfsDirectory):
            msg = f"{self.at(path)} is a directory, not a file"
            raise IsDirectoryError(msg)
        return FrozenTree(self.store, entry.cid), ""
