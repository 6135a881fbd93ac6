"""The mutable file trees of a local store: one row for each file; directories are implied.

Names are stored and compared as bytes. The files below the directory ``a`` have the parent ``a``, or a parent from
``a/`` up to, but not including, ``a0``. In ASCII, ``0`` follows ``/``. With the primary key (root, parent, name), every
query here reads only the rows that it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import Frozen, MfsDirectory, MfsEntry
from mlflow_ipfs.content.storage.local.index.name_tables import decode_path, encode_path
from mlflow_ipfs.content.storage.local.publishing.names import naming
from mlflow_ipfs.content.storage.validation import changed_meanwhile, directory_in_the_way, file_in_the_way
from mlflow_ipfs.errors import ConflictError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_COLUMNS: Final = "parent, name, cid, size, dag_bytes, mtime_ns"
_ABOVE_ALL: Final = b"\xff" * 4097  # greater than any path: PATH_MAX of Linux is 4096

_Row: TypeAlias = "tuple[bytes, bytes, bytes, int, int, int]"  # the values of `_COLUMNS`


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent, name


def _below(directory: bytes) -> tuple[bytes, bytes]:
    """Return the range of parents below a directory: the first one, and the first one after the range."""
    return (directory + b"/", directory + b"0") if directory else (b"\x01", _ABOVE_ALL)


class LocalEntries:
    """The entries of a local store. See ``Entries``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def stat(self, root: str, path: str) -> MfsEntry | MfsDirectory | None:
        """Return the file or the implied directory at a path, or None."""
        tree, encoded = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            entry = _find_entry(connection, tree, encoded)
            if entry is None and _is_directory(connection, tree, encoded):
                return MfsDirectory(root, path)
        return entry

    def list(self, root: str, path: str) -> Sequence[MfsEntry | MfsDirectory]:
        """Return the files and directories directly in a directory, by name in byte order."""
        tree, directory = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            files = _select(connection, "root = ? AND parent = ?", (tree, directory))
            directories = _subdirectories(connection, tree, directory)
        found: list[MfsEntry | MfsDirectory] = [_entry(tree, row) for row in files]
        found += [MfsDirectory(root, decode_path(_join(directory, name))) for name in directories]
        return sorted(found, key=lambda item: encode_path(item.name))

    def walk(self, root: str, path: str) -> Sequence[MfsEntry]:
        """Return the file at ``path``, or every file below it, in order of path bytes."""
        tree, encoded = encode_path(root), encode_path(path)
        with self._context.database.snapshot() as connection:
            rows = [
                row for where, values in _conditions_below(tree, encoded) for row in _select(connection, where, values)
            ]
        rows.sort(key=lambda row: _join(row[0], row[1]))
        return [_entry(tree, row) for row in rows]

    def delete(self, root: str, path: str) -> int:
        """Remove the file at ``path`` and every file below it. Return how many were removed."""
        with self._context.database.write() as connection:
            return sum(
                connection.execute(f"DELETE FROM entry WHERE {where}", values).rowcount  # noqa: S608 - fixed texts
                for where, values in _conditions_below(encode_path(root), encode_path(path))
            )

    def freeze(self, frozen: Frozen) -> None:
        """Allow a CID to be read below a path."""
        with naming(self._context, frozen.cid) as connection:
            put_frozen(connection, frozen)

    def unfreeze(self, frozen: Frozen) -> bool:
        """Withdraw such a permission. Return whether it existed."""
        with self._context.database.write() as connection:
            deleted = connection.execute(
                "DELETE FROM frozen WHERE root = ? AND path = ? AND cid = ?", _frozen_row(frozen)
            )
        return bool(deleted.rowcount)

    def is_frozen(self, frozen: Frozen) -> bool:
        """Return whether a CID may be read below a path."""
        with self._context.database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM frozen WHERE root = ? AND path = ? AND cid = ?", _frozen_row(frozen)
            ).fetchone()
        return row is not None

    def list_frozen(self) -> Iterator[Frozen]:
        """Return every frozen path, in order of root and path."""
        with self._context.database.read() as connection:
            rows = connection.execute("SELECT root, path, cid FROM frozen ORDER BY root, path, cid").fetchall()
        return (Frozen(decode_path(root), decode_path(path), CID.from_bytes(cid)) for root, path, cid in rows)


def put_frozen(connection: sqlite3.Connection, frozen: Frozen) -> None:
    """Insert the row that allows a CID to be read below a path."""
    connection.execute("INSERT OR IGNORE INTO frozen (root, path, cid) VALUES (?, ?, ?)", _frozen_row(frozen))


def _frozen_row(frozen: Frozen) -> tuple[bytes, bytes, bytes]:
    return encode_path(frozen.root), encode_path(frozen.path), bytes(frozen.cid)


def put_entries(connection: sqlite3.Connection, entries: Iterable[MfsEntry]) -> None:
    """Insert rows of files, and replace those at the same paths.

    Raises:
        ConflictError: an entry would be below a file, or would replace a directory.
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
    # Checked after the insert, so that the entries of this call are also checked against each other.
    _check_ancestors(connection, {(row[0], row[1]) for row in rows})
    for tree, parent, name, *_ in rows:
        path = _join(parent, name)
        if not name or _is_directory(connection, tree, path):
            raise directory_in_the_way(decode_path(tree), decode_path(path))


def check_expected(connection: sqlite3.Connection, expected: Mapping[tuple[str, str], CID | None]) -> None:
    """Check that files are those that the caller saw.

    Raises:
        ConflictError: one of them is another one, is gone, or has come.
    """
    for (root, path), cid in expected.items():
        found = _find_entry(connection, encode_path(root), encode_path(path))
        if (None if found is None else found.cid) != cid:
            raise changed_meanwhile(root, path)


def has_conflict(connection: sqlite3.Connection, tree: bytes, parent: bytes, name: bytes) -> bool:
    """Return whether a row would be below a file, or would replace a directory."""
    try:
        _check_ancestors(connection, {(tree, parent)})
    except ConflictError:
        return True
    return not name or _is_directory(connection, tree, _join(parent, name))


def _check_ancestors(connection: sqlite3.Connection, directories: set[tuple[bytes, bytes]]) -> None:
    """Raise if one of the directories, or a directory above one, is a file."""
    checked: set[tuple[bytes, bytes]] = set()
    for tree, directory in directories:
        path = directory
        while path and (tree, path) not in checked:
            checked.add((tree, path))
            if _find_entry(connection, tree, path) is not None:
                raise file_in_the_way(decode_path(tree), decode_path(path))
            path = _split(path)[0]


def _conditions_below(tree: bytes, path: bytes) -> Sequence[tuple[str, tuple[bytes, ...]]]:
    """Return conditions that together select the file at a path and every file below it, each once."""
    conditions: list[tuple[str, tuple[bytes, ...]]] = [
        ("root = ? AND parent = ?", (tree, path)),
        ("root = ? AND parent >= ? AND parent < ?", (tree, *_below(path))),
    ]
    if path:
        conditions.append(("root = ? AND parent = ? AND name = ?", (tree, *_split(path))))
    return conditions


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
    """Return the names of the directories directly in a directory, skipping the rows below each of them."""
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
        # `a-b` sorts between `a` and `a/…`, so only what starts with `a/` is skipped.
        position = _below(row[0][:skip] + name)[1] if slash else row[0] + b"\0"
