"""Storage: the interface of a local store of content.

``Publication`` makes many blocks, and the names that refer to them, durable atomically. ``Storage`` combines readable
blocks, names, publishing, whole files and maintenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

from mlflow_ipfs.content.names.pin_labels import label_notes
from mlflow_ipfs.content.names.pins import Pin
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
    from mlflow_ipfs.content.names.pins import Pins
    from mlflow_ipfs.content.names.refs import Refs

DEFAULT_CACHE_BYTES: Final = 10 << 30  # limit for copies that may be evicted at any time


@dataclass(slots=True)
class Changes:
    """Changes of names that a publication makes, atomically with storing its blocks.

    Attributes:
        pins: pins to add, or whose state to set.
        entries: files of ``mfs://`` to add or replace.
        frozen: permissions to read a CID below a path, to add.
        unpins: pins to remove, in any state, before ``pins`` are added. A pin that does not exist is not an error.
        outbox: actions to send to other nodes later.
        notes: notes to write, by key.
        expected: what the caller saw, by root and path: the CID of the file there, or None for no file. If another program has
            changed one of them since, nothing is stored.
    """

    pins: list[Pin] = field(default_factory=list)
    entries: list[MfsEntry] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    unpins: list[Pin] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    expected: dict[tuple[str, str], CID | None] = field(default_factory=dict)

    @classmethod
    def pinning(cls, owner: str | None, cids: Iterable[CID], name: str) -> Changes:
        """Return the changes that pin CIDs for an owner, with a name for users; no changes without an owner."""
        pins = [Pin(owner, cid) for cid in cids] if owner else []
        return cls(pins=pins, notes=label_notes(pins, name))

    def named_cids(self) -> Iterator[CID]:
        """Yield every CID that gets a name."""
        for names in (self.pins, self.entries, self.frozen, self.outbox):
            for named in names:
                yield named.cid


class FileWriter(Protocol):
    """Writer of the bytes of one file, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the file."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return written bytes, fewer only at the end. For files begun with ``read_back``, before ``finish``."""

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Complete the file, with the CID of its root and the list of its leaves.

        The caller must have computed the CIDs of the leaves from the very buffers that it passed to ``write``. The
        leaves must cover the file in order and without gaps. The caller puts the blocks above the leaves separately.
        """

    def discard(self) -> None:
        """Discard the written bytes. A no-op after ``finish``."""


class Publication(Protocol):
    """One publication. Its blocks become durable and readable at ``commit``, or not at all.

    A context manager: leaving it without ``commit`` discards everything. Not for sharing between threads.
    """

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block. The caller must have computed the CID from ``data``, or verified it.

        Raises:
            InvalidDataError: the block is larger than ``MAX_BLOCK_BYTES``.
        """

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Begin a file that is stored contiguously, so that it can be read without copying.

        Args:
            read_back: whether the caller will read bytes back before it finishes the file.
        """

    def has(self, cid: CID) -> bool:
        """Return whether the block is in the store or in this publication."""

    def commit(self, changes: Changes | None = None) -> int:
        """Make the blocks durable and readable, and then change the names. Return the number of new bytes.

        Raises:
            StoreFullError: the disk is full; nothing was stored.
            StoreBusyError: the store's lock was not acquired within the time limit; nothing was stored.
            NotFoundError: the root block of a name in ``changes`` is not in the store.
            ConflictError: an entry would be below a file, a file would replace a directory, or a file is not the ``expected``
                one. No name was changed.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Hold(Protocol):
    """Protection from gc for blocks that no name needs. A context manager, which ends with its process at the latest.

    For long operations, for example those that wait for a stream: gc can delete other content meanwhile. A block is
    protected from ``flush`` on. Until then, a publication that found the block or put it must be open.
    """

    def add(self, cid: CID) -> None:
        """Add a block, whether or not it is in the store yet. Does not protect the blocks that it links to."""

    def flush(self) -> None:
        """Protect the blocks that were added.

        Raises:
            StoreFullError: the disk is full.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Files, Maintenance, Protocol):
    """Local store of blocks, and of the names that determine which blocks it keeps."""

    @property
    def blocks(self) -> BlockReader:
        """The stored blocks. Never reads from a remote source."""

    @property
    def pins(self) -> Pins:
        """Promises to keep content, by owner."""

    @property
    def refs(self) -> Refs:
        """Mutable names for CIDs."""

    @property
    def entries(self) -> Entries:
        """The mutable file trees."""

    @property
    def notes(self) -> Notes:
        """Short texts that a higher layer stores by key. They do not retain content."""

    def publish(self, *, in_cache: bool = False, hold_existing: bool = False) -> Publication:
        """Begin a publication. Any number may be open at once, in any number of processes.

        Until the publication ends, gc deletes nothing that was in the store when it began. Nor does gc delete what
        publications that began later commit. Large operations are done in steps inside an outer publication.

        Args:
            in_cache: whether the blocks are copies of content that can be fetched again. Such blocks can be read, may
                be evicted at any time, and count as absent for other publications. ``commit`` then accepts no names.
                If a name needs the blocks later, they are verified and become owned.
            hold_existing: whether gc deletes no readable block at all until the publication ends, not even blocks that
                an earlier gc tombstoned. For callers that name content which already exists in the store.
        """

    def hold(self) -> Hold:
        """Begin a hold."""

    def session_name(self) -> str:
        """Return the name of this process's use of the store, until the store is closed or the process ends.

        A layer above stores it with work that it has begun, so that other processes can tell whether the work goes on.
        """

    def is_session_open(self, name: str) -> bool:
        """Return whether a process that had this session name still uses the store."""

    def close(self) -> None:
        """Release files and locks. A second call is a no-op."""
