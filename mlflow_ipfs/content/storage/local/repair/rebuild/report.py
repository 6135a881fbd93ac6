"""Report of a rebuild: what it found, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.kinds import NameKind


@dataclass(frozen=True, slots=True)
class IndexCopyUse:
    """Use that a rebuild made of one copy of the index.

    Attributes:
        path: the file: ``store.db``, an index that an earlier rebuild moved to ``quarantine``, or a backup.
        state: ``whole``, ``damaged`` (some names may be lost) or ``unusable: …``.
        made_at: when its state was current, in seconds since 1970; None for ``store.db`` itself.
        names: how many names came from it.
        blocks: how many small blocks came from it.
    """

    path: Path
    state: str
    made_at: int | None
    names: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class LeftName:
    """Name with missing or damaged content.

    Attributes:
        kind: the kind of the name.
        name: the pin's owner, the ref's name, or an ``mfs://`` URI.
        cid: the CID that it names; None if the row in the old index is damaged.
    """

    kind: NameKind
    name: str
    cid: CID | None


@dataclass(frozen=True, slots=True)
class LeftFile:
    """Damaged file of the store.

    Attributes:
        name: its current path below the store's directory.
        reason: a description of the damage.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """Result of a rebuild.

    Attributes:
        store_id: the store's id, which does not change.
        files: how many files have a row.
        blocks: how many blocks the new index has.
        size_bytes: size of these files and of the blocks inside the index.
        names: how many names were copied, by kind.
        sources: every copy of the index, newest first.
        are_names_current: whether the names came from an undamaged ``store.db``. If not, names made since the last
            backup may be lost; their content is among ``recovered``.
        recovered_owner: owner of the pins on content without a name; None if all content had a name.
        recovered: the CIDs that these pins name.
        recovered_incomplete: those of them below which a block is missing or damaged. They are remains of content that
            gc has removed, or of lost content. A rebuild cannot distinguish the two.
        lost: names whose block is missing in the store. They are not in the new index.
        incomplete: names that were copied although a block below them is missing or damaged.
        damaged: files with bad blocks. Their other blocks are used.
        quarantined: files without a usable block, moved to ``quarantine``, where gc does not remove them.
        old_index: the directory to which the old index was moved; None if the store had no index.
    """

    store_id: str
    files: int
    blocks: int
    size_bytes: int
    names: dict[NameKind, int]
    sources: tuple[IndexCopyUse, ...]
    are_names_current: bool
    recovered_owner: str | None
    recovered: tuple[CID, ...]
    recovered_incomplete: tuple[CID, ...]
    lost: tuple[LeftName, ...]
    incomplete: tuple[LeftName, ...]
    damaged: tuple[LeftFile, ...]
    quarantined: tuple[LeftFile, ...] = ()
    old_index: Path | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the content of every name is complete, and no file is damaged or quarantined."""
        return not (self.lost or self.incomplete or self.damaged or self.quarantined)
