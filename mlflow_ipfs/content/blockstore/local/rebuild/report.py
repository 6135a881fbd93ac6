"""What a rebuild found and did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID


@dataclass(frozen=True, slots=True)
class OldIndexUse:
    """An index that was looked at: the store's own, one that an earlier rebuild set aside, or a backup.

    Attributes:
        path: the file.
        state: ``whole``, ``damaged``, or why nothing of it could be used.
        names: how many names came from it.
        blocks: how many inline blocks came from it.
    """

    path: Path
    state: str
    names: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class LeftName:
    """A name that does not find all of its content.

    Attributes:
        kind: ``pin``, ``ref``, ``entry``, ``frozen`` or ``outbox``.
        name: the pin's owner, the ref's name, or an ``mfs://`` URI.
        cid: what it names; None if the row was unreadable.
    """

    kind: str
    name: str
    cid: CID | None


@dataclass(frozen=True, slots=True)
class LeftFile:
    """A file of the store in which something is wrong.

    Attributes:
        name: its path below the store's folder, where it lies now.
        reason: what is wrong.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found and did.

    Attributes:
        store_id: the store's id, which stays.
        files: how many files have a row.
        blocks: how many blocks the new index knows.
        size_bytes: size of these files, and of the blocks inside the index.
        names: how many names were taken over, by kind.
        sources: every index that was looked at, newest first.
        recovered_owner: owner of the pins on content without a name; None if there was none.
        recovered: what those pins keep.
        recovered_incomplete: those of them below which something is missing or damaged: remains of what a gc dropped, or
            of what is lost. Nobody can say which.
        lost: names whose content is not in the store. They are not in the new index.
        incomplete: names that were taken over, although something below them is missing or damaged.
        damaged: files of which some blocks are bad; the others are used.
        set_aside: files of which nothing could be placed, moved to ``quarantine``, where no gc touches them.
        old_index: where the old index lies now; None if there was none.
    """

    store_id: str
    files: int
    blocks: int
    size_bytes: int
    names: dict[str, int]
    sources: tuple[OldIndexUse, ...]
    recovered_owner: str | None
    recovered: tuple[CID, ...]
    recovered_incomplete: tuple[CID, ...]
    lost: tuple[LeftName, ...]
    incomplete: tuple[LeftName, ...]
    damaged: tuple[LeftFile, ...]
    set_aside: tuple[LeftFile, ...] = ()
    old_index: Path | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every name found all of its content, and every file its place."""
        return not (self.lost or self.incomplete or self.damaged or self.set_aside)
