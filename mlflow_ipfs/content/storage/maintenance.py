"""Maintenance of a storage: garbage collection, scrubbing, disk usage, and the names that damage affects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.kinds import NameKind, Root

MAX_DAMAGED_NAMED: Final = 100  # maximum number of damaged blocks listed for one name


@dataclass(frozen=True, slots=True)
class GCReport:
    """Result of a garbage collection, or the result that it would have, for a dry run.

    Attributes:
        kept_blocks: blocks that were kept, because a name needs them or because they share a file with such blocks.
        removed_blocks: blocks that were deleted.
        freed_bytes: disk space that their deletion freed.
        dry_run: whether nothing was deleted.
        deletable_blocks: blocks that no name needs, but that only a later gc deletes, because their grace period is
            not over or an open publication may still rely on them.
        deletable_bytes: total size of the deletable blocks.
        evicted_files: cached copies that were deleted, because the cache exceeded its limit or the disk was nearly full.
        evicted_bytes: disk space that the eviction freed, in addition to ``freed_bytes``.
    """

    kept_blocks: int
    removed_blocks: int
    freed_bytes: int
    dry_run: bool
    deletable_blocks: int = 0
    deletable_bytes: int = 0
    evicted_files: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Size of all blocks below a group of roots, each block counted once.

    Attributes:
        total_bytes: size of all blocks below the roots.
        own_bytes: size of the blocks that no other group needs.
    """

    total_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Disk usage by group.

    Attributes:
        groups: usage of each group, in the order of the call.
        all_bytes: size of all blocks in the store.
        unneeded_bytes: size of the blocks that none of the groups needs.
        cached_bytes: size of the files in the cache: copies of content, which may be evicted at any time.
    """

    groups: tuple[Usage, ...]
    all_bytes: int
    unneeded_bytes: int
    cached_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """Result of a scrub.

    Attributes:
        blocks: number of blocks hashed.
        size_bytes: number of bytes read.
        problems: each damaged or missing block or file, with a description of the problem.
        healed: blocks and files that were damaged and have been restored.
    """

    blocks: int
    size_bytes: int
    problems: tuple[tuple[CID, str], ...]
    healed: tuple[CID, ...] = ()


@dataclass(frozen=True, slots=True)
class Affected:
    """A name whose content is damaged.

    Attributes:
        kind: the kind of the name.
        name: the pin's owner, the ref's name, or an ``mfs://`` URI.
        cid: the CID that it names.
        damaged: damaged blocks below the CID, at most ``MAX_DAMAGED_NAMED``.
    """

    kind: NameKind
    name: str
    cid: CID
    damaged: tuple[CID, ...]


@dataclass(frozen=True, slots=True)
class AffectedReport:
    """Names that need damaged blocks.

    Attributes:
        names: every name that needs a damaged block, by kind and name.
        unneeded: damaged blocks that certainly no name needs. Empty if a node could not be read, because the blocks
            below that node are unknown.
    """

    names: tuple[Affected, ...]
    unneeded: tuple[CID, ...]


class Maintenance(Protocol):
    """Maintenance operations of a storage. They consider local content only, never a remote source."""

    def roots(self) -> Iterator[Root]:
        """Yield every name that retains content, by kind and name; files of ``mfs://`` by directory."""

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Return the size of all blocks below each group of roots.

        Raises:
            IntegrityError: a node cannot be read.
        """

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Read and hash all blocks, needed or not. From then on, damaged blocks count as absent for deduplication.

        Args:
            progress: called with the number of bytes read since the last call.
        """

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Return the names that need blocks or files that ``scrub`` found damaged. Reads nodes, but no leaves."""

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Delete content that no pin, ref, file, frozen path or outbox row needs.

        Publications may continue during the collection. Content that they rely on, and content that has been
        unneeded for less than ``grace_seconds``, is left for a later collection.

        Raises:
            StoreBusyError: another collection was still running when the time limit passed.
            IntegrityError: a node that is needed cannot be read; nothing was deleted.
        """

    def heal_from(self, source: BlockReader | None) -> None:
        """Set the reader from which damaged blocks are restored, after verification. None disables healing."""
