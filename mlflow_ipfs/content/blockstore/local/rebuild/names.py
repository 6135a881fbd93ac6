"""Names from old indexes: pins, refs, ``mfs://`` entries, frozen paths, and what waits in the outbox.

For each kind the newest index decides, and if its table is whole, it alone: what an older one has in addition
was removed on purpose. Else older ones fill the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.blockstore.local.entry_table import has_conflict
from mlflow_ipfs.content.blockstore.local.name_tables import decode_path
from mlflow_ipfs.content.blockstore.local.rebuild.report import LeftName
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.errors import InvalidCIDError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
    from mlflow_ipfs.content.blockstore.local.rebuild.old_index import OldIndex


@dataclass(frozen=True, slots=True)
class Kind:
    """A table with names.

    Attributes:
        table: its name.
        columns: its columns, each with the type that its values must have; a damaged page may hold anything.
        key: the primary key.
        label: the columns that make up the name as people know it.
    """

    table: str
    columns: dict[str, type | tuple[type, ...]]
    key: tuple[str, ...]
    label: tuple[str, ...]


KINDS: Final = (
    Kind("pin", {"owner": str, "cid": bytes, "state": str}, ("owner", "cid"), ("owner",)),
    Kind("ref", {"name": str, "cid": bytes, "version": int}, ("name",), ("name",)),
    Kind(
        "entry",
        {"root": bytes, "parent": bytes, "name": bytes, "cid": bytes, "size": int, "dag_bytes": int, "mtime_ns": int},
        ("root", "parent", "name"),
        ("root", "parent", "name"),
    ),
    Kind("frozen", {"root": bytes, "path": bytes, "cid": bytes}, ("root", "path", "cid"), ("root", "path")),
    Kind(
        "outbox",
        {
            "id": int, "target": str, "action": str, "cid": bytes, "name": str, "created_at": int, "attempts": int,
            "next_attempt_at": int, "error": (str, type(None)),
        },
        ("id",),
        ("target", "name"),
    ),
)  # fmt: skip


def take_names(draft: IndexDraft, sources: Sequence[OldIndex]) -> list[LeftName]:
    """Put names into a new index.

    Args:
        draft: the index, which has every block that there is.
        sources: old indexes, newest first.

    Returns:
        The names that the newest index with them has for content that is not there.
    """
    return [name for kind in KINDS for name in _take_kind(draft, sources, kind)]


def all_are_whole(source: OldIndex) -> bool:
    """Whether an index can be trusted to know every block and every name that there was."""
    return all(source.is_whole(table) for table in ("block", *(kind.table for kind in KINDS)))


def _take_kind(draft: IndexDraft, sources: Sequence[OldIndex], kind: Kind) -> list[LeftName]:
    lost: dict[tuple[Any, ...], LeftName] = {}
    for number, source in enumerate(sources):
        known = set(lost)
        source.names += _take(draft, source, kind, lost, is_first=number == 0)
        is_readable = all(name.cid is not None for key, name in lost.items() if key not in known)
        if source.is_whole(kind.table) and is_readable:
            break
    return list(lost.values())


def _take(
    draft: IndexDraft, source: OldIndex, kind: Kind, lost: dict[tuple[Any, ...], LeftName], *, is_first: bool
) -> int:
    """Take the names of one kind from one index. Returns how many were new."""
    names = list(kind.columns)
    insert = f"INSERT OR IGNORE INTO {kind.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - names from above
    taken = 0
    for row in source.rows(kind.table, names, kind.key):
        values = dict(zip(names, row, strict=True))
        key = tuple(values[column] for column in kind.key)
        name = name_of(kind, values)
        if name.cid is None or not (name.cid.identity_data is not None or draft.has(name.cid.multihash)):
            lost.setdefault(key, name)
        elif kind.table != "entry" or is_first or not has_conflict(draft.connection, *key):
            is_new = draft.connection.execute(insert, tuple(row)).rowcount
            taken += is_new
            if is_new and lost.get(key) == name:  # the newer index was damaged there
                del lost[key]
    return taken


def name_of(kind: Kind, values: dict[str, Any]) -> LeftName:
    """A row's name and what it names, as the report has it."""
    return LeftName(kind.table, _label(kind, values), _cid_of(kind, values))


def _cid_of(kind: Kind, values: dict[str, Any]) -> CID | None:
    """What a row names; None if the row can't be as it was written."""
    if not all(isinstance(values[column], wanted) for column, wanted in kind.columns.items()):
        return None
    try:
        return CID.from_bytes(values["cid"])
    except InvalidCIDError:
        return None


def _label(kind: Kind, values: dict[str, Any]) -> str:
    parts = [_text(values[column]) for column in kind.label]
    if kind.table in ("entry", "frozen"):
        return "mfs://" + "/".join(part for part in parts if part)
    return " ".join(part for part in parts if part)


def _text(value: object) -> str:
    return decode_path(value) if isinstance(value, bytes) else str(value)
