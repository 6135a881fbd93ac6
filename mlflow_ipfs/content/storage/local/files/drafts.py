"""Drafts in ``tmp``, and the steps that turn a draft into a durable file in ``files``.

Syncing starts as soon as a file is written. It runs on a few threads, so that it overlaps with the hashing of the next
file. A file is moved only after its sync has ended. Every file gets a unique name. A publication that fails can
therefore remove its files without checking other publications.
"""

from __future__ import annotations

import re
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID, multihash_text
from mlflow_ipfs.content.multibase import decode_multibase
from mlflow_ipfs.content.storage.local.index.index_rows import Stamp
from mlflow_ipfs.errors import InvalidCIDError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

_SYNC_THREADS: Final = 4  # the file system combines concurrent syncs
_OPEN_DRAFTS: Final = 64  # that wait for their sync; each is an open file
_OBJECT: Final = re.compile(r"([a-z2-7]+)\.[0-9a-f]{12}")
QUARANTINE_PREFIX: Final = re.compile(r"[0-9a-f]{8}-")  # of the names of files in quarantine


@dataclass(frozen=True, slots=True)
class Draft:
    """A written file that is not yet durable."""

    path: Path
    descriptor: int


def drop_draft(disk: Disk, draft: Draft) -> None:
    """Delete a draft that is not needed."""
    disk.remove(draft.path)  # before closing: if removal fails, the caller can still close the file
    disk.close(draft.descriptor)


def object_name(root: bytes) -> str:
    """Return a new name for the object of a root: the multihash in base32 and a random part.

    The object's directory is named after the last byte of the hash.
    """
    return f"files/{root[-1]:02x}/{multihash_text(root)}.{uuid.uuid4().hex[:12]}"


def root_in(name: str) -> bytes | None:
    """Return the multihash of the root from an object's name; None if the name is not an object's."""
    match = _OBJECT.fullmatch(QUARANTINE_PREFIX.sub("", name.rpartition("/")[2], count=1))
    if match is None:
        return None
    try:
        multihash = decode_multibase(f"b{match[1]}")
        cid = CID.from_bytes(b"\x01\x55" + multihash)
        cid.check_hash()
    except InvalidCIDError:
        return None
    return cid.multihash


def pack_name() -> str:
    """Return a new name for a pack."""
    name = uuid.uuid4().hex
    return f"files/{name[:2]}/{name}.car"


class Syncer:
    """Threads that make the files of one publication durable."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[Stamp]] = deque()

    def start(self, draft: Draft) -> Future[Stamp]:
        """Seal, sync and close a file in the background. The result is its stamp."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="mlflow-ipfs-sync")
        if len(self._pending) >= _OPEN_DRAFTS:
            self._pending.popleft().result()
        future = self._pool.submit(self._seal, draft)
        self._pending.append(future)
        return future

    def _seal(self, draft: Draft) -> Stamp:
        try:
            status = self._disk.seal(draft.descriptor)
            self._disk.sync(draft.descriptor)  # after the change of mode, so that the mode is durable too
            return Stamp.of(status)
        finally:
            self._disk.close(draft.descriptor)

    def sync_directories(self, directories: Iterable[Path]) -> None:
        """Wait until the names in all these directories are durable."""
        unique = sorted(set(directories))
        if self._pool is None or len(unique) == 1:
            for directory in unique:
                self._disk.sync_directory(directory)
        else:
            list(self._pool.map(self._disk.sync_directory, unique))

    def close(self) -> None:
        """Wait for the running syncs and stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=False)
            self._pool = None
        self._pending.clear()


def move_into_place(layout: Layout, disk: Disk, draft: Path, name: str) -> Path:
    """Move a durable draft to its name among the store's files.

    Returns:
        The directory of the file. The caller must sync it and its parent: another process may have created the
        directory and not have synced the parent yet.
    """
    destination = layout.directory / name
    try:
        disk.rename(draft, destination)
    except FileNotFoundError:
        disk.make_directory(destination.parent)
        disk.rename(draft, destination)
    return destination.parent
