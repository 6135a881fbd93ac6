"""Which names need what is damaged? One walk over the nodes below all names, then up from the damage.

Leaves are not looked up: a link is compared with what is damaged. Of a node only its bit and its links to other nodes
stay in memory, 24 bytes a link.
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

_Named: TypeAlias = "dict[CID, None]"  # what is damaged, in order, each once
_Link: TypeAlias = "tuple[CID, int | None]"  # a node, and the number of the one that links to it


def find_affected(context: StoreContext, reader: BlockReader, damaged: Collection[CID]) -> AffectedReport:
    """See ``Storage.find_affected``.

    Args:
        context: the store.
        reader: reads blocks in which something is wrong, and heals them if it can.
        damaged: as a scrub names it: blocks, and the roots of files.
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
    unneeded = [cid for cid in damaged if cid not in walk.met] if walk.is_complete else []
    return AffectedReport(tuple(names), tuple(unneeded))


def _find_targets(context: StoreContext, reader: BlockReader, damaged: Collection[CID]) -> dict[bytes, _Named]:
    """What is damaged, by multihash. With a damaged file go its bad leaves: others may need them, too."""
    targets: dict[bytes, _Named] = {}
    for cid in damaged:
        targets.setdefault(cid.multihash, {})[cid] = None
    for place_id, root in _find_files(context, targets):
        for leaf in _iterate_leaves(context, place_id):
            try:
                reader.get(leaf)
            except NotFoundError:  # a gc came between
                continue
            except IntegrityError:
                targets.setdefault(leaf.multihash, {}).update(targets[root])
    return targets


def _find_files(context: StoreContext, roots: Collection[bytes]) -> list[tuple[int, bytes]]:
    """The rows of files of these roots. One that was set aside has its root in its name alone."""
    with context.database.read() as connection:
        query = f"SELECT id, root FROM place WHERE root IN {VALUES}"  # noqa: S608 - fixed texts
        found = list(select_many(connection, query, roots))
        aside = connection.execute("SELECT id, name FROM place WHERE damaged AND root IS NULL")
        return found + [(row_id, root) for row_id, name in aside if (root := root_in(name)) in roots]


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
    """Visits each node below some roots once.

    A node's number is its row's. A root without a row, which is missing or an identity CID, has one below 0.

    Attributes:
        met: what is damaged and has a way from a root to it.
        is_complete: false if a node could not be read, so that nobody knows what it needs.
    """

    def __init__(self, files: OpenFiles, reader: BlockReader, targets: dict[bytes, _Named]) -> None:
        self._files = files
        self._reader = reader
        self._targets = targets
        self._walked = {codec: Bits() for codec in CODECS_WITH_LINKS}
        self._numbers: dict[bytes, int] = {}  # of roots without a row, by multihash
        self._children = array("q")  # numbers of nodes; at the same index in the other one is who links to it
        self._parents = array("q")
        self._below: dict[int, _Named] = {}
        self.met: set[CID] = set()
        self.is_complete = True

    def follow(self, connection: sqlite3.Connection, roots: Iterable[CID]) -> None:
        """Visit what lies below roots."""
        waiting = (link for root in roots for link in self._keep_nodes([root], None))
        stack: list[_Link] = []
        while batch := stack[-_NODES:] or list(islice(waiting, _NODES)):
            del stack[-_NODES:]
            stack.extend(self._step(connection, batch))

    def find_below(self, connection: sqlite3.Connection) -> dict[bytes, _Named]:
        """What is damaged at or below each node, by its multihash; nodes without damage are left out."""
        self._ascend()
        query = f"SELECT id, multihash FROM block WHERE id IN {VALUES}"  # noqa: S608 - fixed texts
        below = {multihash: self._below[row_id] for row_id, multihash in select_many(connection, query, self._below)}
        below.update((multihash, self._below[key]) for multihash, key in self._numbers.items() if key in self._below)
        return below

    def _ascend(self) -> None:
        """Note of each node what is damaged further down."""
        parents = _by_child(self._children, self._parents)
        waiting = dict.fromkeys(self._below)
        while waiting:  # a node comes again only if more was found below it: as often as names are kept, at most
            child = next(iter(waiting))
            del waiting[child]
            for parent in parents(child):
                if self._note(parent, self._below[child]):
                    waiting[parent] = None

    def _note(self, number: int, found: Iterable[CID]) -> bool:
        """Note damage at or below a node. Returns whether that was news."""
        named = self._below.setdefault(number, {})
        before = len(named)
        for cid in found:
            if len(named) >= MAX_DAMAGED_NAMED:
                break
            named[cid] = None
        return len(named) > before

    def _keep_nodes(self, children: Iterable[CID], parent: int | None) -> Iterator[_Link]:
        """Look for damage among what a node links to, and leave out what links to nothing itself."""
        for child in children:
            found = self._targets.get(child.multihash)
            if found is not None:
                self.met.update(found)
                if parent is not None:
                    self._note(parent, found)
            if child.codec in CODECS_WITH_LINKS:
                yield child, parent

    def _step(self, connection: sqlite3.Connection, batch: list[_Link]) -> Iterator[_Link]:
        """Visit a few nodes. Gives the nodes that they link to."""
        rows = find_rows(connection, {cid.multihash for cid, _ in batch})
        nodes: list[tuple[Row, CID]] = []
        for cid, parent in batch:
            row = rows.get(cid.multihash)
            if row is None:
                number = parent if parent is not None else self._number_root(cid)
                yield from self._keep_nodes(_links_of(cid, self._read_with_care(cid)), number)
                continue
            found = self._targets.get(cid.multihash)
            if found is not None:
                self._note(row.id, found)
            if row.form != LeafEncoding.RAW:
                continue
            if parent is not None:
                self._children.append(row.id)
                self._parents.append(parent)
            if not self._walked[cid.codec].add(row.id):
                nodes.append((row, cid))
        nodes.sort(key=lambda node: (node[0].place_name or "", node[0].offset))
        for row, cid in nodes:
            yield from self._keep_nodes(_links_of(cid, self._read(row, cid)), row.id)

    def _number_root(self, cid: CID) -> int:
        """The number of a root without a row; that it is damaged itself is noted, too."""
        number = self._numbers.setdefault(cid.multihash, -1 - len(self._numbers))
        self._note(number, self._targets.get(cid.multihash, ()))
        return number

    def _read(self, row: Row, cid: CID) -> bytes | None:
        data = row.data if row.place_name is None else self._files.read(row.place_name, row.offset, row.length)
        return data if data is not None and cid.matches(data) else self._read_with_care(cid)

    def _read_with_care(self, cid: CID) -> bytes | None:
        try:
            return self._reader.get(cid)
        except (NotFoundError, IntegrityError):
            self.is_complete = False
            return None


def _links_of(cid: CID, block: bytes | None) -> Iterable[CID]:
    return () if block is None else links_of_node(cid, block)


def _by_child(children: array[int], parents: array[int]) -> Callable[[int], Iterator[int]]:
    """A look-up of who links to a node, in memory of no more than one number a link."""
    order = array("q", sorted(range(len(children)), key=children.__getitem__))

    def look_up(child: int) -> Iterator[int]:
        first = bisect_left(order, child, key=children.__getitem__)
        for position in range(first, len(order)):
            if children[order[position]] != child:
                return
            yield parents[order[position]]

    return look_up
