"""The tables of names, one entry for each kind of name. Code that must cover all names uses this list.

A table of ``store.db`` with a column ``cid`` retains content. A test compares this list with the schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.kinds import NameKind, Root

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class NameTable:
    """A table of names.

    Attributes:
        kind: the kind of the names.
        table: the name of the table.
        columns: every column, with the types that its values may have.
        key: the primary key.
        label: the columns from which reports build the name.
    """

    kind: NameKind
    table: str
    columns: dict[str, type | tuple[type, ...]]
    key: tuple[str, ...]
    label: tuple[str, ...]

    def label_of(self, values: dict[str, Any]) -> str:
        """Return the name of a row in the form that reports show."""
        parts = [_text(values[column]) for column in self.label]
        if self.kind in (NameKind.FILE, NameKind.FROZEN):
            return "mfs://" + "/".join(part for part in parts if part)
        return " ".join(part for part in parts if part)


NAME_TABLES: Final = (
    NameTable(NameKind.PIN, "pin", {"owner": str, "cid": bytes, "state": str}, ("owner", "cid"), ("owner",)),
    NameTable(NameKind.REF, "ref", {"name": str, "cid": bytes, "version": int}, ("name",), ("name",)),
    NameTable(
        NameKind.FILE,
        "entry",
        {"root": bytes, "parent": bytes, "name": bytes, "cid": bytes, "size": int, "dag_bytes": int, "mtime_ns": int},
        ("root", "parent", "name"),
        ("root", "parent", "name"),
    ),
    NameTable(
        NameKind.FROZEN,
        "frozen",
        {"root": bytes, "path": bytes, "cid": bytes},
        ("root", "path", "cid"),
        ("root", "path"),
    ),
    NameTable(
        NameKind.OUTBOX,
        "outbox",
        {
            "id": int, "target": str, "action": str, "cid": bytes, "name": str, "created_at": int, "attempts": int,
            "next_attempt_at": int, "error": (str, type(None)),
        },
        ("id",),
        ("target", "name"),
    ),
)  # fmt: skip

# In the order of the primary key, so that SQLite need not sort.
_DIRECTORIES: Final = (
    "SELECT root, parent, sum(name != x'2e'), sum(size) FROM entry GROUP BY root, parent ORDER BY root, parent"
)


def iterate_root_cids(connection: sqlite3.Connection) -> Iterator[CID]:
    """Yield every CID that has a name. A CID with several names is yielded several times."""
    for table in NAME_TABLES:
        for row in connection.execute(f"SELECT cid FROM {table.table}"):  # noqa: S608 - the names above
            yield CID.from_bytes(row[0])


def iterate_names(connection: sqlite3.Connection) -> Iterator[tuple[NameKind, str, CID]]:
    """Yield every single name: its kind, its label in reports, and its CID."""
    for table in NAME_TABLES:
        for label, cid in _labels(connection, table):
            yield table.kind, label, cid


def iterate_roots(connection: sqlite3.Connection) -> Iterator[Root]:
    """Yield every name. Files of ``mfs://`` are grouped by directory."""
    for table in NAME_TABLES:
        if table.kind is NameKind.FILE:
            for root, parent, file_count, size_bytes in connection.execute(_DIRECTORIES):
                uri = f"mfs://{decode_path(root)}/{decode_path(parent)}".removesuffix("/")
                yield Root(table.kind, uri, None, file_count, size_bytes)
        else:
            for label, cid in _labels(connection, table):
                yield Root(table.kind, label, cid)


def _labels(connection: sqlite3.Connection, table: NameTable) -> Iterator[tuple[str, CID]]:
    columns, order = ", ".join((*table.label, "cid")), ", ".join(table.key)
    for *values, cid in connection.execute(f"SELECT {columns} FROM {table.table} ORDER BY {order}"):  # noqa: S608 - the names above
        yield table.label_of(dict(zip(table.label, values, strict=True))), CID.from_bytes(cid)


def encode_path(text: str) -> bytes:
    """Return the bytes that the index stores for a path. Names that are not UTF-8 use Python's ``surrogateescape``."""
    return text.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """Return the path for bytes from the index: the inverse of ``encode_path``."""
    return path.decode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    return decode_path(value) if isinstance(value, bytes) else str(value)
