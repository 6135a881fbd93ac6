"""Kinds of names, and names as reports show them.

Code that must cover all names (gc, rebuild, inspection, the command line, tests) iterates over ``NameKind``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID


class NameKind(StrEnum):
    """Kind of a name. Every kind retains the content of its CIDs."""

    PIN = "pin"
    REF = "ref"
    FILE = "file"
    FROZEN = "frozen"
    OUTBOX = "outbox"

    @property
    def noun(self) -> str:
        """Singular noun for messages."""
        return _NOUNS[self]


_NOUNS = {
    NameKind.PIN: "pin",
    NameKind.REF: "ref",
    NameKind.FILE: "mfs:// file",
    NameKind.FROZEN: "frozen path",
    NameKind.OUTBOX: "outbox row",
}


@dataclass(frozen=True, slots=True)
class Root:
    """A name that retains content, or all files directly in one directory of ``mfs://``.

    Attributes:
        kind: the kind of the name.
        name: the pin's owner, the ref's name, an ``mfs://`` URI, or the outbox row's target and name.
        cid: the CID that it retains; None for the files of a directory.
        file_count: number of files in the directory; 0 for a single name.
        size_bytes: total size of these files.
    """

    kind: NameKind
    name: str
    cid: CID | None
    file_count: int = 0
    size_bytes: int = 0

    @property
    def kind_label(self) -> str:
        """The kind for reports: ``files`` for the files of a directory."""
        return "files" if self.cid is None else self.kind.value
