"""What keeps content: every table with names, as people know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.interface import Keeper, NameKind
from mlflow_ipfs.content.cid import CID

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_FOLDERS: Final = "SELECT root, parent, count(*), sum(size) FROM entry GROUP BY root, parent ORDER BY root, parent"  # by the primary key


def encode_path(text: str) -> bytes:
    """Return a path as the tables have it. Names that are not UTF-8 are in Python's ``surrogateescape`` form."""
    return text.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """Return a path of the tables as text, the inverse of ``encode_path``."""
    return path.decode("utf-8", "surrogateescape")


def iterate_keepers(connection: sqlite3.Connection) -> Iterator[Keeper]:
    """Every name, from one snapshot."""
    for owner, cid in connection.execute("SELECT owner, cid FROM pin ORDER BY owner, cid"):
        yield Keeper("pin", owner, CID.from_bytes(cid))
    for name, cid in connection.execute("SELECT name, cid FROM ref ORDER BY name"):
        yield Keeper("ref", name, CID.from_bytes(cid))
    for root, parent, file_count, size_bytes in connection.execute(_FOLDERS):
        yield Keeper("files", _uri(root, parent), None, file_count, size_bytes)
    for root, path, cid in connection.execute("SELECT root, path, cid FROM frozen ORDER BY root, path, cid"):
        yield Keeper("frozen", _uri(root, path), CID.from_bytes(cid))
    for target, name, cid in connection.execute("SELECT target, name, cid FROM outbox ORDER BY id"):
        yield Keeper("outbox", f"{target} {name}".strip(), CID.from_bytes(cid))


def iterate_names(connection: sqlite3.Connection) -> Iterator[tuple[NameKind, str, CID]]:
    """The same, but each file of ``mfs://`` for itself."""
    for keeper in iterate_keepers(connection):
        if keeper.kind != "files" and keeper.cid is not None:
            yield keeper.kind, keeper.name, keeper.cid
    for root, parent, name, cid in connection.execute("SELECT root, parent, name, cid FROM entry"):
        yield "file", f"{_uri(root, parent)}/{decode_path(name)}", CID.from_bytes(cid)


def _uri(root: bytes, path: bytes) -> str:
    return f"mfs://{decode_path(root)}/{decode_path(path)}".removesuffix("/")
