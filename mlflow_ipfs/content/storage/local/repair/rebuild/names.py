"""Names from copies of the old index, and pins on content that no name reaches.

Reachability is computed in SQL on the scratch tables of the new index, because a million blocks have a million links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.local.index.name_tables import NAME_TABLES, NameTable, iterate_root_cids
from mlflow_ipfs.content.storage.local.publishing.entries import has_conflict
from mlflow_ipfs.content.storage.local.publishing.names import put_pin
from mlflow_ipfs.content.storage.local.repair.rebuild.index_copies import read_rows
from mlflow_ipfs.content.storage.local.repair.rebuild.report import LeftName
from mlflow_ipfs.errors import InvalidCIDError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mlflow_ipfs.content.storage.local.repair.rebuild.index_copies import IndexCopy
    from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import NewIndex

_NODE_CODECS: Final = f"({', '.join(map(str, sorted(CODECS_WITH_LINKS)))})"
_EXISTS: Final = "EXISTS (SELECT 1 FROM block b WHERE b.multihash = l.child)"
_REACH: Final = """
    WITH RECURSIVE reach (multihash, codec) AS (
        SELECT multihash, codec FROM scratch.seed
        UNION SELECT l.child, l.child_codec FROM reach r JOIN scratch.link l ON l.parent = r.multihash AND l.codec = r.codec)
    INSERT OR IGNORE INTO scratch.reached SELECT multihash FROM reach"""
# The codec and version of a pin on a block whose codec is unknown: those of a leaf with its encoding.
_CODEC: Final = f"coalesce(c.codec, CASE b.form WHEN 1 THEN {DAG_PB} ELSE {RAW} END)"
_VERSION: Final = "coalesce(c.version, CASE b.form WHEN 1 THEN 0 ELSE 1 END)"
_UNREACHED: Final = """
    FROM block b LEFT JOIN scratch.codec c ON c.multihash = b.multihash
    WHERE NOT EXISTS (SELECT 1 FROM scratch.reached r WHERE r.multihash = b.multihash)"""
_NO_UNREACHED_PARENT: Final = """
    AND NOT EXISTS (
        SELECT 1 FROM scratch.link l JOIN scratch.codec p ON p.multihash = l.parent AND p.codec = l.codec
        WHERE l.child = b.multihash AND NOT EXISTS (SELECT 1 FROM scratch.reached r WHERE r.multihash = l.parent))"""


def take_names(new_index: NewIndex, copies: Sequence[IndexCopy]) -> list[LeftName]:
    """Copy names from old indexes into a new one, unless the named block is missing in the store.

    Args:
        new_index: the new index, which has every block.
        copies: the old indexes, newest first.

    Returns:
        The names whose block is missing in the store.
    """
    lost: dict[tuple[Any, ...], LeftName] = {}
    for table in NAME_TABLES:
        for copy in copies:
            for row in copy.rows(table.table, table.key):
                name = _name_of(table, row)
                if name.cid is None:
                    copy.damaged.add(table.table)
                if name.cid is None or not (name.cid.identity_data is not None or new_index.has(name.cid.multihash)):
                    lost.setdefault((table.table, *(row[column] for column in table.key)), name)
                elif table.kind is not NameKind.FILE or copy is copies[0] or not _has_conflict(new_index, row):
                    copy.names += _insert(new_index, table.table, row)
            if copy.is_whole(table.table):
                break
    return list(lost.values())


def _insert(new_index: NewIndex, table: str, row: dict[str, Any]) -> int:
    """Add a name unless the index has a newer one with the same key. Return how many were added, 0 or 1."""
    columns, parameters = ", ".join(row), ", ".join("?" * len(row))
    insert = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({parameters})"  # noqa: S608 - names from the schema
    return new_index.connection.execute(insert, tuple(row.values())).rowcount


def _has_conflict(new_index: NewIndex, row: dict[str, Any]) -> bool:
    return has_conflict(new_index.connection, row["root"], row["parent"], row["name"])


def _name_of(table: NameTable, row: dict[str, Any]) -> LeftName:
    return LeftName(table.kind, table.label_of(row), _cid_of(table, row))


def _cid_of(table: NameTable, row: dict[str, Any]) -> CID | None:
    """Return the CID in a row; None if the CID is invalid or a value has a type that its column cannot have."""
    if not all(isinstance(row[column], types) for column, types in table.columns.items()):
        return None
    try:
        return CID.from_bytes(row["cid"])
    except InvalidCIDError:
        return None


class Reachability:
    """Links between the blocks of a new index.

    Args:
        new_index: the new index, which has all of its blocks.
    """

    def __init__(self, new_index: NewIndex) -> None:
        self._index = new_index
        self._execute = new_index.connection.execute
        self._execute("CREATE INDEX scratch.link_of_child ON link (child)")
        self._execute("CREATE INDEX scratch.link_of_parent ON link (parent)")
        self._execute(
            "CREATE TABLE scratch.seed (multihash BLOB, codec INTEGER, PRIMARY KEY (multihash, codec)) WITHOUT ROWID"
        )
        self._execute("CREATE TABLE scratch.reached (multihash BLOB PRIMARY KEY) WITHOUT ROWID")
        self._execute("CREATE TABLE scratch.broken (multihash BLOB PRIMARY KEY) WITHOUT ROWID")

    def forget_healed(self) -> None:
        """Remove blocks from the damaged ones if an undamaged copy was found later."""
        for (multihash,) in self._execute("SELECT multihash FROM scratch.bad").fetchall():
            if self._index.find(multihash) is not None:
                self._execute("DELETE FROM scratch.bad WHERE multihash = ?", (multihash,))

    def find_incomplete(self) -> list[LeftName]:
        """Return the names below which a block is missing or damaged."""
        self._find_broken()
        names = (
            _name_of(table, row) for table in NAME_TABLES for row in read_rows(self._index.connection, table.table)
        )
        return [name for name in names if name.cid is not None and self._is_broken(name.cid)]

    def incomplete_among(self, cids: Iterable[CID]) -> list[CID]:
        """Return those of some blocks below which a block is missing or damaged."""
        self._find_broken()
        return [cid for cid in cids if self._is_broken(cid)]

    def _find_broken(self) -> None:
        self._execute("DELETE FROM scratch.broken")
        self._execute("INSERT OR IGNORE INTO scratch.broken SELECT multihash FROM scratch.bad")
        self._break_parents_of_missing("1")

    def _is_broken(self, cid: CID) -> bool:
        row = self._execute("SELECT 1 FROM scratch.broken WHERE multihash = ?", (cid.multihash,)).fetchone()
        return row is not None

    def _break_parents_of_missing(self, condition: str) -> None:
        """Add all nodes above missing blocks, and above the blocks already in the table, to ``scratch.broken``."""
        self._execute(
            "WITH RECURSIVE broken (multihash) AS ("  # noqa: S608 - fixed texts
            "  SELECT multihash FROM scratch.broken"
            f" UNION SELECT l.parent FROM scratch.link l WHERE ({condition}) AND NOT {_EXISTS}"
            "  UNION SELECT l.parent FROM broken JOIN scratch.link l ON l.child = broken.multihash"
            ") INSERT OR IGNORE INTO scratch.broken SELECT multihash FROM broken"
        )

    def pin_unreached(self, owner: str, is_garbage: Callable[[bytes], bool]) -> list[CID]:
        """Pin every undamaged block that no name reaches, unless another such block links to it.

        A node below which another node is missing is pinned as raw bytes, because gc fails at a node that it cannot
        walk. The children of such a node are pinned, too.

        Args:
            owner: the owner of the pins.
            is_garbage: returns whether no name reached a block before the rebuild.

        Returns:
            The pinned CIDs.
        """
        self._reach(iterate_root_cids(self._index.connection))
        # Damaged blocks count as reached: they get no pins.
        self._execute("INSERT OR IGNORE INTO scratch.reached SELECT multihash FROM scratch.bad")
        self._forget_codecs_above_gaps()
        pinned: list[CID] = []
        while tops := self._unreached(_NO_UNREACHED_PARENT) or self._unreached(""):
            kept = [cid for cid in tops if not is_garbage(cid.multihash)]
            for cid in kept:
                put_pin(self._index.connection, Pin(owner, cid))
            pinned += kept
            self._reach(iter(tops))
        return pinned

    def _reach(self, cids: Iterator[CID]) -> None:
        self._execute("DELETE FROM scratch.seed")
        self._index.connection.executemany(
            "INSERT OR IGNORE INTO scratch.seed (multihash, codec) VALUES (?, ?)",
            ((cid.multihash, cid.codec) for cid in list(cids)),
        )
        self._execute(_REACH)

    def _forget_codecs_above_gaps(self) -> None:
        self._execute("DELETE FROM scratch.broken")
        self._break_parents_of_missing(f"l.child_codec IN {_NODE_CODECS}")
        self._execute(
            "DELETE FROM scratch.codec WHERE multihash IN (SELECT multihash FROM scratch.broken)"
            " AND multihash NOT IN (SELECT multihash FROM scratch.reached)"
        )

    def _unreached(self, condition: str) -> list[CID]:
        rows = self._execute(f"SELECT b.multihash, {_CODEC}, {_VERSION} {_UNREACHED} {condition}")
        return [CID(version if codec == DAG_PB else 1, codec, multihash) for multihash, codec, version in rows]
