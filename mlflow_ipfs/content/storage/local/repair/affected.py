"""Search for the names affected by damage: one walk down over the nodes below all names, then up from the damage.

The walk does not look up leaves: it compares each link with the damaged CIDs. Each node takes one bit of memory, and
each link to another node 24 bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.block_reading import OpenFiles
from mlflow_ipfs.content.storage.local.files.drafts import root_in
from mlflow_ipfs.content.storage.local.index.index_rows import VALUES, select_many
from mlflow_ipfs.content.storage.local.index.name_tables import iterate_names, iterate_root_cids
from mlflow_ipfs.content.storage.local.reading.marks import Bits, Row, find_rows
from mlflow_ipfs.content.storage.maintenance import MAX_DAMAGED_NAMED, Affected, AffectedReport
from mlflow_ipfs.content.storage.marking import links_of_node
from mlflow_ipfs.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import TypeAlias

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

_NODES: Final = 50  # read at a time; each may link to thousands of others
_PAGE: Final = 1000

_Damage: TypeAlias = "dict[CID, None]"  # an ordered set of damaged CIDs
_Link: TypeAlias = "tuple[CID, int | None]"  # a node, and the number of its parent; None for a root


def find_affected(context: StoreContext, reader: BlockReader, damaged: Collection[CID]) -> AffectedReport:
    """Return the names that need damaged content. See ``Storage.find_affected``.

    Args:
        context: the store.
        reader: reads damaged blocks, and heals them if it can.
        damaged: the CIDs that a scrub reports: blocks, and the roots of files.
    """
    targets = _find_targets(context, reader, damaged)
    with OpenFiles(context.layout, context.disk) as files, context.database.snapshot() as connection:
        walk = _Walk(files, reader, targets)
        walk.follow(connection, iterate_root_cids(connection))
        below = walk.find_below(connection)
        names = [
            Affected(kind, name, cid, tuple(islice(found, MAX_DAMAGED_NAMED)))
            for kind, name, cid in iterate_names(connection)
            if (found := (below if cid.codec in CODECS_WITH_LINKS else targets).get(cid.multihash))
        ]
    names.sort(key=lambda affected: (affected.kind, affected.name, str(affected.cid)))
    unneeded = [cid for cid in damaged if cid not in walk.reached] if walk.is_complete else []
    return AffectedReport(tuple(names), tuple(unneeded))


def _find_targets(context: StoreContext, reader: BlockReader, damaged: Collection[CID]) -> dict[bytes, _Damage]:
    """Return the damaged CIDs by multihash. The damaged leaves of a file are included: other files may share them."""
    targets: dict[bytes, _Damage] = {}
    for cid in damaged:
        targets.setdefault(cid.multihash, {})[cid] = None
    for place_id, root in _find_files(context, targets):
        for leaf in _iterate_leaves(context, place_id):
            try:
                reader.get(leaf)
            except NotFoundError:  # gc has removed it meanwhile
                continue
            except IntegrityError:
                targets.setdefault(leaf.multihash, {}).update(targets[root])
    return targets


def _find_files(context: StoreContext, roots: Collection[bytes]) -> list[tuple[int, bytes]]:
    """Return the rows of the files of these roots, with the roots. A quarantined file has its root only in its name."""
    with context.database.read() as connection:
        query = f"SELECT id, root FROM place WHERE root IN {VALUES}"  # noqa: S608 - fixed texts
        found = list(select_many(connection, query, roots))
        quarantined = connection.execute("SELECT id, name FROM place WHERE damaged AND root IS NULL")
        return found + [(row_id, root) for row_id, name in quarantined if (root := root_in(name)) in roots]


def _iterate_leaves(context: StoreContext, place_id: int) -> Iterator[CID]:
    last = 0
    while True:
        with context.database.read() as connection:
            rows = connection.execute(
                "SELECT id, multihash FROM block WHERE place = ? AND id > ? ORDER BY id LIMIT ?",
                (place_id, last, _PAGE),
            ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        for _, multihash in rows:
            yield CID(1, RAW, multihash)


class _Walk:
    """Walk that visits each node below some roots once.

    The number of a node is the id of its row. A root without a row, which is missing or an identity CID, has a negative
    number.

    Attributes:
        reached: the damaged CIDs that were reached from a root.
        is_complete: false if a node could not be read, so that the content below it is unknown.
    """

    def __init__(self, files: OpenFiles, reader: BlockReader, targets: dict[bytes, _Damage]) -> None:
        self._files = files
        self._reader = reader
        self._targets = targets
        self._walked = {codec: Bits() for codec in CODECS_WITH_LINKS}
        self._numbers: dict[bytes, int] = {}  # of roots without a row, by multihash
        self._children = array("q")  # numbers of nodes
        self._parents = array("q")  # at the same index: the number of a node that links to the child
        self._below: dict[int, _Damage] = {}
        self.reached: set[CID] = set()
        self.is_complete = True

    def follow(self, connection: sqlite3.Connection, roots: Iterable[CID]) -> None:
        """Visit all nodes below roots."""
        pending = (link for root in roots for link in self._compare([root], None))
        stack: list[_Link] = []
        while batch := stack[-_NODES:] or list(islice(pending, _NODES)):
            del stack[-_NODES:]
            stack.extend(self._visit(connection, batch))

    def find_below(self, connection: sqlite3.Connection) -> dict[bytes, _Damage]:
        """Return the damage at or below each node, by the node's multihash. Nodes without damage are left out."""
        self._propagate()
        query = f"SELECT id, multihash FROM block WHERE id IN {VALUES}"  # noqa: S608 - fixed texts
        below = {multihash: self._below[row_id] for row_id, multihash in select_many(connection, query, self._below)}
        below.update((multihash, self._below[key]) for multihash, key in self._numbers.items() if key in self._below)
        return below

    def _propagate(self) -> None:
        """Record, for each node, the damaged blocks below it."""
        parents = _index_parents(self._children, self._parents)
        pending = dict.fromkeys(self._below)
        # A node is visited again only if more damage was found below it: at most `MAX_DAMAGED_NAMED` times.
        while pending:
            child = next(iter(pending))
            del pending[child]
            for parent in parents(child):
                if self._record(parent, self._below[child]):
                    pending[parent] = None

    def _record(self, number: int, found: Iterable[CID]) -> bool:
        """Record damage at or below a node. Return whether a CID was new."""
        damage = self._below.setdefault(number, {})
        before = len(damage)
        for cid in found:
            if len(damage) >= MAX_DAMAGED_NAMED:
                break
            damage[cid] = None
        return len(damage) > before

    def _compare(self, children: Iterable[CID], parent: int | None) -> Iterator[_Link]:
        """Record the damaged CIDs among a node's links. Yield the links to nodes that may have links themselves."""
        for child in children:
            found = self._targets.get(child.multihash)
            if found is not None:
                self.reached.update(found)
                if parent is not None:
                    self._record(parent, found)
            if child.codec in CODECS_WITH_LINKS:
                yield child, parent

    def _visit(self, connection: sqlite3.Connection, batch: list[_Link]) -> Iterator[_Link]:
        """Visit a few nodes. Yield the nodes that they link to."""
        rows = find_rows(connection, {cid.multihash for cid, _ in batch})
        nodes: list[tuple[Row, CID]] = []
        for cid, parent in batch:
            row = rows.get(cid.multihash)
            if row is None:
                number = parent if parent is not None else self._number_root(cid)
                yield from self._compare(_links_of(cid, self._read_or_heal(cid)), number)
                continue
            found = self._targets.get(cid.multihash)
            if found is not None:
                self._record(row.id, found)
            if row.form != LeafEncoding.RAW:
                continue
            if parent is not None:
                self._children.append(row.id)
                self._parents.append(parent)
            if not self._walked[cid.codec].add(row.id):
                nodes.append((row, cid))
        nodes.sort(key=lambda node: (node[0].place_name or "", node[0].offset))
        for row, cid in nodes:
            yield from self._compare(_links_of(cid, self._read(row, cid)), row.id)

    def _number_root(self, cid: CID) -> int:
        """Return the number of a root without a row. Record the root's own damage, too."""
        number = self._numbers.setdefault(cid.multihash, -1 - len(self._numbers))
        self._record(number, self._targets.get(cid.multihash, ()))
        return number

    def _read(self, row: Row, cid: CID) -> bytes | None:
        data = row.data if row.place_name is None else self._files.read(row.place_name, row.offset, row.length)
        return data if data is not None and cid.matches(data) else self._read_or_heal(cid)

    def _read_or_heal(self, cid: CID) -> bytes | None:
        try:
            return self._reader.get(cid)
        except (NotFoundError, IntegrityError):
            self.is_complete = False
            return None


def _links_of(cid: CID, block: bytes | None) -> Iterable[CID]:
    return () if block is None else links_of_node(cid, block)


def _index_parents(children: array[int], parents: array[int]) -> Callable[[int], Iterator[int]]:
    """Return a function that yields the parents of a node. Its index takes one number a link."""
    order = array("q", sorted(range(len(children)), key=children.__getitem__))

    def look_up(child: int) -> Iterator[int]:
        first = bisect_left(order, child, key=children.__getitem__)
        for position in range(first, len(order)):
            if children[order[position]] != child:
                return
            yield parents[order[position]]

    return look_up
