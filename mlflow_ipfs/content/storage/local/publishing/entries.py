"""The mutable file trees of a local store: one row for each file, directories implied.

Names are kept and compared as bytes. Below the directory ``a`` are the parents ``a`` itself and
everything from ``a/`` up to, not including, ``a0``: ``0`` follows ``/`` in ASCII. The primary key
(root, parent, name) answers every question here without reading more rows than it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import Frozen, MfsDirectory, MfsEntry
from mlflow_ipfs.content.storage.local.index.name_tables import decode_path, encode_path
from mlflow_ipfs.content.storage.local.publishing.names import naming
from mlflow_ipfs.content.storage.validation import directory_in_the_way, file_in_the_way
from mlflow_ipfs.errors import ConflictError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_COLUMNS: Final = "parent, name, cid, size, dag_bytes, mtime_ns"
_ABOVE_ALL: Final = b"\xff" * 4097  # greater than any path: Linux' PATH_MAX is 4096


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent, name


def _below(directory: bytes) -> tuple[bytes, bytes]:
    """First parent that may lie below a directory, and the first after all of those."""
    return (directory + b"/", directory + b"0") if directory else (b"\x01", _ABOVE_ALL)


class LocalEntries:
    """The entries of a local store. See ``Entries``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def stat(self, root: str, path: str) -> MfsEntry | MfsDirectory | None:
        """The file or the implied directory at a path, or None."""
        tree, place = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            entry = _find_entry(connection, tree, place)
            if entry is None and _is_directory(connection, tree, place):
                return MfsDirectory(root, path)
        return entry

    def list(self, root: str, path: str) -> Sequence[MfsEntry | MfsDirectory]:
        """The files and directories directly in a directory, by name in byte order."""
        tree, directory = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            files = _select(connection, "root = ? AND parent = ?", (tree, directory))
            directories = _subdirectories(connection, tree, directory)
        found: list[MfsEntry | MfsDirectory] = [_entry(tree, row) for row in files]
        found += [MfsDirectory(root, decode_path(_join(directory, name))) for name in directories]
        return sorted(found, key=lambda item: encode_path(item.name))

    def walk(self, root: str, path: str) -> Sequence[MfsEntry]:
        """The file at ``path``, or every file below it, in order of path bytes."""
        tree, place = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            rows = [row for where, values in _reach(tree, place) for row in _select(connection, where, values)]
        rows.sort(key=lambda row: _join(row[0], row[1]))
        return [_entry(tree, row) for row in rows]

    def delete(self, root: str, path: str) -> int:
        """Remove the file at ``path`` and every file below it. Returns how many."""
        with self._context.database.write() as connection:
            return sum(
                connection.execute(f"DELETE FROM entry WHERE {where}", values).rowcount  # noqa: S608 - fixed texts
                for where, values in _reach(encode_path(root), encode_path(path))
            )

    def freeze(self, frozen: Frozen) -> None:
        """Allow a CID below a path."""
        with naming(self._context, frozen.cid) as connection:
            put_frozen(connection, frozen)

    def unfreeze(self, frozen: Frozen) -> bool:
        """Withdraw that permission."""
        with self._context.database.write() as connection:
            gone = connection.execute("DELETE FROM frozen WHERE root = ? AND path = ? AND cid = ?", _frozen_row(frozen))
        return bool(gone.rowcount)

    def is_frozen(self, frozen: Frozen) -> bool:
        """Tell whether that CID may be read below that path."""
        with self._context.database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM frozen WHERE root = ? AND path = ? AND cid = ?", _frozen_row(frozen)
            ).fetchone()
        return row is not None

    def list_frozen(self) -> Iterator[Frozen]:
        """Everything frozen, in order of root and path."""
        with self._context.database.read() as connection:
            rows = connection.execute("SELECT root, path, cid FROM frozen ORDER BY root, path, cid").fetchall()
        return (Frozen(decode_path(root), decode_path(path), CID.from_bytes(cid)) for root, path, cid in rows)


def put_frozen(connection: sqlite3.Connection, frozen: Frozen) -> None:
    """Write the row that allows a CID below a path."""
    connection.execute("INSERT OR IGNORE INTO frozen (root, path, cid) VALUES (?, ?, ?)", _frozen_row(frozen))


def _frozen_row(frozen: Frozen) -> tuple[bytes, bytes, bytes]:
    return encode_path(frozen.root), encode_path(frozen.path), bytes(frozen.cid)


def put_entries(connection: sqlite3.Connection, entries: Iterable[MfsEntry]) -> None:
    """Write rows of files, over those that are at the same paths.

    Raises:
        ConflictError: one would stand under a file, or where a directory is.
    """
    rows = [
        (encode_path(entry.root), *_split(encode_path(entry.path)), bytes(entry.cid), entry.size_bytes,
         entry.dag_bytes, entry.mtime_ns)
        for entry in entries
    ]  # fmt: skip
    connection.executemany(
        f"INSERT INTO entry (root, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
        " ON CONFLICT (root, parent, name) DO UPDATE SET cid = excluded.cid, size = excluded.size,"
        " dag_bytes = excluded.dag_bytes, mtime_ns = excluded.mtime_ns",
        rows,
    )
    # Checked afterwards, so that entries of this very call are checked against each other too.
    _check_ancestors(connection, {(row[0], row[1]) for row in rows})
    for tree, parent, name, *_ in rows:
        path = _join(parent, name)
        if not name or _is_directory(connection, tree, path):
            raise directory_in_the_way(decode_path(tree), decode_path(path))


def has_conflict(connection: sqlite3.Connection, tree: bytes, parent: bytes, name: bytes) -> bool:
    """Tell whether a row would stand under a file, or where a directory is."""
    try:
        _check_ancestors(connection, {(tree, parent)})
    except ConflictError:
        return True
    return not name or _is_directory(connection, tree, _join(parent, name))


def _check_ancestors(connection: sqlite3.Connection, directories: set[tuple[bytes, bytes]]) -> None:
    """No directory may be a file, nor may any directory above it."""
    checked: set[tuple[bytes, bytes]] = set()
    for tree, directory in directories:
        path = directory
        while path and (tree, path) not in checked:
            checked.add((tree, path))
            if _find_entry(connection, tree, path) is not None:
                raise file_in_the_way(decode_path(tree), decode_path(path))
            path = _split(path)[0]


def _reach(tree: bytes, path: bytes) -> Sequence[tuple[str, tuple[bytes, ...]]]:
    """Conditions that together cover the file at a path and every file below it, each once."""
    conditions: list[tuple[str, tuple[bytes, ...]]] = [
        ("root = ? AND parent = ?", (tree, path)),
        ("root = ? AND parent >= ? AND parent < ?", (tree, *_below(path))),
    ]
    if path:
        conditions.append(("root = ? AND parent = ? AND name = ?", (tree, *_split(path))))
    return conditions


_Row = tuple[bytes, bytes, bytes, int, int, int]


def _select(connection: sqlite3.Connection, where: str, values: tuple[bytes, ...]) -> list[_Row]:
    return connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE {where}", values).fetchall()  # noqa: S608 - fixed texts


def _entry(tree: bytes, row: _Row) -> MfsEntry:
    parent, name, cid, size_bytes, dag_bytes, mtime_ns = row
    return MfsEntry(
        decode_path(tree), decode_path(_join(parent, name)), CID.from_bytes(cid), size_bytes, dag_bytes, mtime_ns
    )


def _find_entry(connection: sqlite3.Connection, tree: bytes, path: bytes) -> MfsEntry | None:
    rows = _select(connection, "root = ? AND parent = ? AND name = ?", (tree, *_split(path)))
    return _entry(tree, rows[0]) if rows else None


def _is_directory(connection: sqlite3.Connection, tree: bytes, path: bytes) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM entry WHERE root = ?1 AND parent = ?2)"
        " OR EXISTS (SELECT 1 FROM entry WHERE root = ?1 AND parent >= ?3 AND parent < ?4)",
        (tree, path, *_below(path)),
    ).fetchone()
    return bool(row[0])


def _subdirectories(connection: sqlite3.Connection, tree: bytes, directory: bytes) -> list[bytes]:
    """Names of the directories directly in a directory, by jumping over what is below each of them."""
    skip = len(directory) + 1 if directory else 0
    position, end = _below(directory)
    names: dict[bytes, None] = {}
    while True:
        row = connection.execute(
            "SELECT parent FROM entry WHERE root = ? AND parent >= ? AND parent < ? ORDER BY parent LIMIT 1",
            (tree, position, end),
        ).fetchone()
        if row is None:
            return list(names)
        name, slash, _ = row[0][skip:].partition(b"/")
        names[name] = None
        # Between `a` and `a/…` lie `a-b` and others, so only what starts with `a/` is jumped over.
        position = _below(row[0][:skip] + name)[1] if slash else row[0] + b"\0"
