"""Storage: what a local place that keeps content must offer, assembled from its parts.

``Publication`` makes many blocks, and the names that refer to them, durable in one step. ``Storage`` is the readable
blocks, the names, publishing, whole files and maintenance together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

from mlflow_ipfs.content.storage.files import Files
from mlflow_ipfs.content.storage.maintenance import Maintenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import BlockReader, Leaf
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.entries import Entries, Frozen, MfsEntry
    from mlflow_ipfs.content.names.notes import Notes
    from mlflow_ipfs.content.names.outbox import OutboxRow
    from mlflow_ipfs.content.names.pins import Pin, Pins
    from mlflow_ipfs.content.names.refs import Refs

DEFAULT_CACHE_BYTES: Final = 10 << 30  # copies that may be evicted at any time


@dataclass(slots=True)
class Changes:
    """The names that a publication changes, in the same step as it stores its blocks.

    Attributes:
        pins: pins to add, or whose state to set.
        entries: files of ``mfs://`` to add or replace.
        frozen: paths below which a CID may be read.
        unpins: pins to remove, whatever their state, before ``pins`` are added. A pin that does not exist is no error.
        outbox: what to send to other nodes later.
    """

    pins: list[Pin] = field(default_factory=list)
    entries: list[MfsEntry] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    unpins: list[Pin] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)

    def named_cids(self) -> Iterator[CID]:
        """Yield every CID that gets a name."""
        for names in (self.pins, self.entries, self.frozen, self.outbox):
            for named in names:
                yield named.cid


class FileWriter(Protocol):
    """Takes the bytes of one file, cut into leaves, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the file."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes that were written, fewer only at the end. For files begun with ``read_back``, before ``finish``."""

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Name the whole file by its root, and state its leaves.

        The leaves' CIDs were computed from the very buffers given to ``write``. Leaves cover the file without gaps,
        in order. Blocks above the leaves are put separately.
        """

    def discard(self) -> None:
        """Drop what was written. A no-op after ``finish``."""


class Publication(Protocol):
    """One publication. What is put becomes durable and readable at ``commit``, or not at all.

    A context manager; leaving it without ``commit`` discards everything. Not for sharing between threads.
    """

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block whose CID the caller has just computed from ``data``, or verified.

        Raises:
            InvalidDataError: it is larger than ``MAX_BLOCK_BYTES``.
        """

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Start a file that is stored contiguously, so that it can be read without copying.

        Args:
            read_back: the caller will read bytes back before it finishes the file.
        """

    def has(self, cid: CID) -> bool:
        """Return whether the block is in the store or in this publication."""

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then change the names. Returns how many bytes were new.

        Raises:
            StoreFullError: the disk is full; nothing was stored.
            StoreBusyError: the store's lock was not free in time; nothing was stored.
            NotFoundError: a name in ``changes`` has a root block that is not in the store.
            ConflictError: an entry would be below a file, or a file would replace a directory.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Hold(Protocol):
    """Blocks that no gc deletes although no name needs them. A context manager; it ends with its process.

    For work that takes long, perhaps because it waits for a stream: gc can delete other content meanwhile. A block is
    protected from ``flush`` on. Until then a publication must be open that found the block, or put it.
    """

    def add(self, cid: CID) -> None:
        """Add a block, whether or not it is in the store yet. The blocks that it links to are not protected by that."""

    def flush(self) -> None:
        """Protect the blocks that were added.

        Raises:
            StoreFullError: the disk has no room for the list.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Files, Maintenance, Protocol):
    """The blocks of one place, and the names that decide which of them it keeps."""

    @property
    def blocks(self) -> BlockReader:
        """The stored blocks. Never reads from a remote source."""

    @property
    def pins(self) -> Pins:
        """Which content is kept, and for which owner."""

    @property
    def refs(self) -> Refs:
        """Mutable names for CIDs."""

    @property
    def entries(self) -> Entries:
        """The mutable file trees."""

    @property
    def notes(self) -> Notes:
        """Short texts that a layer above keeps in the store. They retain no content."""

    def publish(self, *, in_cache: bool = False, hold_existing: bool = False) -> Publication:
        """Start a publication. Any number may be open at once, in any number of processes.

        Until the publication ends, gc deletes nothing that was in the store when it began, nor anything committed
        later by publications that were opened after it. Large work is done in steps inside an outer publication.

        Args:
            in_cache: the blocks are copies of what can be fetched again. They can be read, may be evicted at any
                time, and count as absent for other publications; ``commit`` takes no names. If a name comes to need
                them, they are verified and owned from then on.
            hold_existing: until the publication ends, nothing that can be read is deleted, not even what a gc had
                condemned before: for callers that name content which already exists in the store.
        """

    def hold(self) -> Hold:
        """Start a hold."""

    def close(self) -> None:
        """Release files and locks. A second call is a no-op."""
