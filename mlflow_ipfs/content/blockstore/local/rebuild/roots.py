"""What do the names reach? What they don't is pinned, so that no gc drops what could not be placed.

All in SQL on the notes of the draft: a million blocks have a million links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.local.pin_table import put_pin
from mlflow_ipfs.content.blockstore.local.rebuild.names import KINDS, name_of
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.codecs import CODECS_WITH_LINKS
from mlflow_ipfs.content.pins import Pin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
    from mlflow_ipfs.content.blockstore.local.rebuild.report import LeftName

_NODE_CODECS: Final = f"({', '.join(map(str, sorted(CODECS_WITH_LINKS)))})"
_IS_THERE: Final = "EXISTS (SELECT 1 FROM block b WHERE b.multihash = l.child)"
_REACH: Final = """
    WITH RECURSIVE reach (multihash, codec) AS (
        SELECT multihash, codec FROM notes.seed
        UNION SELECT l.child, l.child_codec FROM reach r JOIN notes.link l ON l.parent = r.multihash AND l.codec = r.codec)
    INSERT OR IGNORE INTO notes.reached SELECT multihash FROM reach"""
# As what a block is pinned if nothing says what it is: a leaf as its form tells.
_CODEC: Final = f"coalesce(c.codec, CASE b.form WHEN 1 THEN {DAG_PB} ELSE {RAW} END)"
_VERSION: Final = "coalesce(c.version, CASE b.form WHEN 1 THEN 0 ELSE 1 END)"
_UNREACHED: Final = """
    FROM block b LEFT JOIN notes.codec c ON c.multihash = b.multihash
    WHERE NOT EXISTS (SELECT 1 FROM notes.reached r WHERE r.multihash = b.multihash)"""
_NO_UNREACHED_PARENT: Final = """
    AND NOT EXISTS (
        SELECT 1 FROM notes.link l JOIN notes.codec p ON p.multihash = l.parent AND p.codec = l.codec
        WHERE l.child = b.multihash AND NOT EXISTS (SELECT 1 FROM notes.reached r WHERE r.multihash = l.parent))"""


class RootFinder:
    """Looks at the links between the blocks of a draft that has all of its blocks.

    Args:
        draft: the new index.
    """

    def __init__(self, draft: IndexDraft) -> None:
        self._draft = draft
        self._execute = draft.connection.execute
        self._execute("CREATE INDEX notes.link_of_child ON link (child)")
        self._execute("CREATE INDEX notes.link_of_parent ON link (parent)")
        self._execute(
            "CREATE TABLE notes.seed (multihash BLOB, codec INTEGER, PRIMARY KEY (multihash, codec)) WITHOUT ROWID"
        )
        self._execute("CREATE TABLE notes.reached (multihash BLOB PRIMARY KEY) WITHOUT ROWID")
        self._execute("CREATE TABLE notes.broken (multihash BLOB PRIMARY KEY) WITHOUT ROWID")

    def forget_healed(self) -> None:
        """Forget bad blocks of which a good copy was found later."""
        for (multihash,) in self._execute("SELECT multihash FROM notes.bad").fetchall():
            if self._draft.find(multihash) is not None:
                self._execute("DELETE FROM notes.bad WHERE multihash = ?", (multihash,))

    def take_spare_blocks(self) -> None:
        """Take those of the spare blocks that a node links to, and what these link to."""
        query = (
            "SELECT DISTINCT l.child FROM notes.link l JOIN notes.spare s ON s.multihash = l.child"  # noqa: S608 - fixed texts
            f" WHERE NOT {_IS_THERE}"
        )
        while found := self._execute(query).fetchall():
            for (multihash,) in found:
                self._draft.has(multihash)

    def find_incomplete(self) -> list[LeftName]:
        """Names below which something is missing or damaged."""
        self._find_broken()
        found: list[LeftName] = []
        for kind in KINDS:
            columns = list(kind.columns)
            for row in self._execute(f"SELECT {', '.join(columns)} FROM {kind.table}"):  # noqa: S608 - names from a table
                name = name_of(kind, dict(zip(columns, row, strict=True)))
                if name.cid is not None and self._is_broken(name.cid):
                    found.append(name)
        return found

    def incomplete_among(self, cids: Iterable[CID]) -> list[CID]:
        """Those of some blocks below which something is missing or damaged."""
        self._find_broken()
        return [cid for cid in cids if self._is_broken(cid)]

    def _find_broken(self) -> None:
        self._execute("DELETE FROM notes.broken")
        self._execute("INSERT OR IGNORE INTO notes.broken SELECT multihash FROM notes.bad")
        self._break_parents_of_missing("1")

    def _is_broken(self, cid: CID) -> bool:
        row = self._execute("SELECT 1 FROM notes.broken WHERE multihash = ?", (cid.multihash,)).fetchone()
        return row is not None

    def _break_parents_of_missing(self, which: str) -> None:
        """Note all nodes above blocks that are missing, and above those noted already."""
        self._execute(
            "WITH RECURSIVE broken (multihash) AS ("  # noqa: S608 - fixed texts
            "  SELECT multihash FROM notes.broken"
            f" UNION SELECT l.parent FROM notes.link l WHERE ({which}) AND NOT {_IS_THERE}"
            "  UNION SELECT l.parent FROM broken JOIN notes.link l ON l.child = broken.multihash"
            ") INSERT OR IGNORE INTO notes.broken SELECT multihash FROM broken"
        )

    def pin_unreached(self, owner: str, is_garbage: Callable[[bytes], bool]) -> list[CID]:
        """Pin every good block that no name reaches and no other such block links to.

        A node below which another node is missing is pinned as raw bytes, because a gc refuses to go on where it
        cannot walk; what it links to is pinned for itself.

        Args:
            owner: the pins' owner.
            is_garbage: whether a block is known to be needed by nothing.
        """
        self._reach(cid for kind in KINDS for cid in self._cids(kind.table))
        self._execute("INSERT OR IGNORE INTO notes.reached SELECT multihash FROM notes.bad")  # not worth a pin
        self._forget_codecs_above_gaps()
        pinned: list[CID] = []
        while tops := self._unreached(_NO_UNREACHED_PARENT) or self._unreached(""):
            kept = [cid for cid in tops if not is_garbage(cid.multihash)]
            for cid in kept:
                put_pin(self._draft.connection, Pin(owner, cid))
            pinned += kept
            self._reach(iter(tops))
        return pinned

    def _cids(self, table: str) -> Iterator[CID]:
        for row in self._execute(f"SELECT DISTINCT cid FROM {table}"):  # noqa: S608 - a name from a table
            yield CID.from_bytes(row[0])

    def _reach(self, cids: Iterator[CID]) -> None:
        self._execute("DELETE FROM notes.seed")
        self._draft.connection.executemany(
            "INSERT OR IGNORE INTO notes.seed (multihash, codec) VALUES (?, ?)",
            ((cid.multihash, cid.codec) for cid in list(cids)),
        )
        self._execute(_REACH)

    def _forget_codecs_above_gaps(self) -> None:
        self._execute("DELETE FROM notes.broken")
        self._break_parents_of_missing(f"l.child_codec IN {_NODE_CODECS}")
        self._execute(
            "DELETE FROM notes.codec WHERE multihash IN (SELECT multihash FROM notes.broken)"
            " AND multihash NOT IN (SELECT multihash FROM notes.reached)"
        )

    def _unreached(self, condition: str) -> list[CID]:
        rows = self._execute(f"SELECT b.multihash, {_CODEC}, {_VERSION} {_UNREACHED} {condition}")
        return [CID(version if codec == DAG_PB else 1, codec, multihash) for multihash, codec, version in rows]
