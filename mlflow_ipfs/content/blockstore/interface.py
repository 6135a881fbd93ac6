"""What a place that keeps blocks must offer.

``Blockstore`` keeps single blocks. ``Publication`` makes many blocks, and the names that refer
to them, durable in one step. ``Storage`` is a blockstore with the pins, refs and entries that
decide what is kept; the local store is one, the memory store another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.entries import Entries, Frozen, MfsEntry
    from mlflow_ipfs.content.notes import Notes
    from mlflow_ipfs.content.pins import Pin, Pins
    from mlflow_ipfs.content.refs import Refs

MAX_BLOCK_BYTES: Final = 2 << 20  # the largest block that any IPFS node takes (Bitswap's limit)
MAX_LEAF_BYTES: Final = 1 << 20  # the largest cut that we make; leaves room for wrapping
DEFAULT_CACHE_BYTES: Final = 10 << 30  # of what may be dropped at any time


class LeafForm(IntEnum):
    """How the block of a file's leaf is made from the file's bytes. Stored: never renumber."""

    RAW = 0  # the block is the bytes
    UNIXFS_FILE = 1  # the block is a dag-pb UnixFS File node around the bytes (CIDv0 profiles)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of a file: ``length`` bytes of the file at ``offset``, and the CID of the block made from them."""

    cid: CID
    offset: int
    length: int
    form: LeafForm


@dataclass(frozen=True, slots=True)
class GCReport:
    """What a garbage collection removed, or would remove.

    Attributes:
        kept_blocks: how many stay, because something needs them or because they share a file with such.
        removed_blocks: how many are gone.
        freed_bytes: what that freed on the disk.
        dry_run: whether it was only asked what would go.
        condemned_blocks: how many nothing needs, but are to go later: their grace is not over, or somebody who
            publishes may still rely on them.
        condemned_bytes: what those take.
        evicted_files: how many cached copies went, because the cache had more than it may, or the disk was nearly full.
        evicted_bytes: what that freed, besides ``freed_bytes``.
    """

    kept_blocks: int
    removed_blocks: int
    freed_bytes: int
    dry_run: bool
    condemned_blocks: int = 0
    condemned_bytes: int = 0
    evicted_files: int = 0
    evicted_bytes: int = 0


KeeperKind = Literal["pin", "ref", "files", "frozen", "outbox"]


@dataclass(frozen=True, slots=True)
class Keeper:
    """A name that keeps content.

    Attributes:
        kind: ``files`` for the files directly in one folder of ``mfs://``, the others for a single CID.
        name: the pin's owner, the ref's name, or an ``mfs://`` URI.
        cid: what it keeps; None for ``files``.
        file_count: how many files; 0 for the others.
        size_bytes: the size of those files.
    """

    kind: KeeperKind
    name: str
    cid: CID | None
    file_count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of roots takes. Sizes are of blocks, each counted once.

    Attributes:
        total_bytes: all blocks below the roots.
        own_bytes: those that no other group needs.
    """

    total_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What is used by whom.

    Attributes:
        groups: one for each group, in the order in which they were asked for.
        all_bytes: every block in the store.
        unneeded_bytes: blocks that none of the groups needs.
    """

    groups: tuple[Usage, ...]
    all_bytes: int
    unneeded_bytes: int


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a look at every byte found.

    Attributes:
        blocks: how many blocks were hashed.
        size_bytes: how many bytes were read.
        problems: each damaged or missing block, or file, with what is wrong.
        healed: blocks and files that were damaged and are whole again.
    """

    blocks: int
    size_bytes: int
    problems: tuple[tuple[CID, str], ...]
    healed: tuple[CID, ...] = ()


NameKind = Literal["pin", "ref", "file", "frozen", "outbox"]
MAX_DAMAGED_NAMED: Final = 100  # of one name


@dataclass(frozen=True, slots=True)
class Affected:
    """A name below which something is damaged.

    Attributes:
        kind: what it is.
        name: the pin's owner, the ref's name, or an ``mfs://`` URI.
        cid: what it stands for.
        damaged: what is damaged there, at most ``MAX_DAMAGED_NAMED``.
    """

    kind: NameKind
    name: str
    cid: CID
    damaged: tuple[CID, ...]


@dataclass(frozen=True, slots=True)
class AffectedReport:
    """Who needs what is damaged.

    Attributes:
        names: everything that needs any of it, by kind and name.
        unneeded: what nothing needs, for certain: where a node cannot be read, nobody knows what is below it.
    """

    names: tuple[Affected, ...]
    unneeded: tuple[CID, ...]


@dataclass(slots=True)
class Changes:
    """The names that a publication adds, in the same step as its blocks."""

    pins: list[Pin] = field(default_factory=list)
    entries: list[MfsEntry] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)


class BlockReader(Protocol):
    """The reading half of a blockstore."""

    def get(self, cid: CID) -> bytes:
        """Return a block, verified against its CID.

        Raises:
            NotFoundError: the block is not here.
            IntegrityError: what is here does not hash to the CID.
        """

    def has(self, cid: CID) -> bool:
        """Tell whether the block is here, without reading it. Identity CIDs always are."""


@runtime_checkable
class SizedBlockReader(BlockReader, Protocol):
    """A reader that need not read a block to know its size. Not every one can."""

    def get_size(self, cid: CID) -> int:
        """The length of a block in bytes.

        Raises:
            NotFoundError: the block is not here.
        """


@runtime_checkable
class BulkBlockReader(BlockReader, Protocol):
    """A reader that is quicker with many blocks at once than with one after the other. Not every one is."""

    def get_many(self, cids: Sequence[CID]) -> Generator[bytes, None, None]:
        """Yield the blocks, each as ``get`` returns it, and raise what ``get`` raises when it comes to that block.

        It holds files open until it is read to its end or closed. Some MiB at once gain all that there is to gain.
        """


def get_many(reader: BlockReader, cids: Sequence[CID]) -> Generator[bytes, None, None]:
    """Yield blocks as ``BulkBlockReader.get_many`` does, from any reader."""
    if isinstance(reader, BulkBlockReader):
        return reader.get_many(cids)
    return (reader.get(cid) for cid in cids)


class Blockstore(BlockReader, Protocol):
    """Single blocks, keyed by multihash: CIDs that differ only in version or codec share a block."""

    def put(self, cid: CID, data: bytes) -> None:
        """Keep a block. Durable when the call returns.

        Raises:
            IntegrityError: ``data`` does not hash to ``cid``; nothing was kept.
            InvalidDataError: it is larger than ``MAX_BLOCK_BYTES``.
        """

    def put_many(self, blocks: Iterable[tuple[CID, bytes]]) -> None:
        """Keep many blocks, all or none; otherwise as ``put``."""

    def delete(self, cid: CID) -> bool:
        """Forget a block, whether or not anything needs it. Waits for publications. Returns whether it was here."""

    def multihashes(self) -> Iterator[bytes]:
        """The multihash of every block, in no order. Raises on trouble, never stops short."""


class FileWriter(Protocol):
    """Takes the bytes of one file, cut into leaves, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the file."""

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Name the whole file by its root and say which leaves it consists of.

        The leaves' CIDs were computed from the very buffers given to ``write``; they cover the
        file without gaps, in order. Blocks above the leaves are put separately.
        """

    def discard(self) -> None:
        """Forget what was written. After ``finish`` it does nothing."""


class Publication(Protocol):
    """One publish. What is put becomes durable and readable at ``commit``, or not at all.

    Used as a context manager; leaving it without ``commit`` discards everything. Not for
    sharing between threads.
    """

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block whose CID the caller has just computed from ``data``, or verified."""

    def begin_file(self) -> FileWriter:
        """Start a file that is kept contiguous, so that it can be read without copying."""

    def has(self, cid: CID) -> bool:
        """Tell whether the block is in the store or in this publication."""

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything durable and visible, then add the names. Returns how many bytes were new.

        Raises:
            StoreFullError: the disk is full; nothing was kept.
            StoreBusyError: the store's lock was not free in time; nothing was kept.
            NotFoundError: a name in ``changes`` has a root block that is not in the store.
            ConflictError: an entry would stand under a file, or a file where a folder is.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A blockstore together with the names that decide what is kept."""

    @property
    def blocks(self) -> Blockstore:
        """The single blocks."""

    @property
    def pins(self) -> Pins:
        """What is kept, and for whom."""

    @property
    def refs(self) -> Refs:
        """Mutable names for CIDs."""

    @property
    def entries(self) -> Entries:
        """The mutable file trees."""

    @property
    def notes(self) -> Notes:
        """Texts that a layer above keeps here."""

    def publish(self, *, in_cache: bool = False, keep_found: bool = False) -> Publication:
        """Start a publication. Any number may run at once, in any number of processes.

        Until one ends, no gc deletes what was found in the store since it began, or committed by others that were
        opened after it: large work is done in steps inside a publication that stays open.

        Args:
            in_cache: its blocks are copies of what can be had elsewhere. They can be read, but may go at any
                time, and count as absent for other publications; ``commit`` takes no names. If a name comes
                to need them, they are verified and kept from then on.
            keep_found: until it ends, nothing that can be read is deleted, not even what a gc had condemned
                before: for who is to name content that he only finds.
        """

    def heal_from(self, source: BlockReader | None) -> None:
        """Replace what turns out to be damaged by what another blockstore has, verified; None: no longer."""

    def file_path(self, cid: CID) -> Path | None:
        """A read-only path to the whole, undamaged content of a file, or None if there is no single one.

        The path is good until the store is closed, or until the content is dropped.

        Raises:
            IntegrityError: the content is damaged and could not be healed; the damaged file is set aside.
        """

    def ensure_file(self, cid: CID) -> Path | None:
        """As ``file_path``; a large file that is kept in pieces is put together, as a file that may go later."""

    def link_file(self, source: Path, destination: Path) -> None:
        """Place content from ``file_path`` at ``destination``, which may be written to afterwards.

        Shares the bytes where writing to the one can't reach the other, else copies.
        """

    def make_view_folder(self) -> Path:
        """A new empty private folder, removed when this process ends."""

    def keepers(self) -> Iterator[Keeper]:
        """Every name that keeps content, by kind and name."""

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Add up what lies below each group of roots.

        Raises:
            IntegrityError: a node cannot be read.
        """

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Read and hash everything, needed or not; damage counts as absent for dedupe from then on.

        Args:
            progress: told how many bytes were read since it was told last.
        """

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Find the names that need blocks or files which ``scrub`` has found damaged. Reads nodes, but no leaves."""

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Drop what no pin, ref, entry or frozen path needs.

        Publications may go on meanwhile. What they rely on, and what nothing has needed for less
        than ``grace_seconds``, is left to a later call.

        Raises:
            StoreBusyError: another collection was still running when the time limit passed.
            IntegrityError: a node that is needed cannot be read; nothing was collected.
        """

    def close(self) -> None:
        """Release files and locks. Calling it twice is no error."""
