"""Marking of the rows of ``block`` that roots need. Each row has one mark bit, and nodes are read in batches.

Ten million blocks take 2.5 MB. Only nodes are read. A leaf costs one lookup in the index.
"""

from __future__ import annotations

from array import array
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from mlflow_ipfs.content.codecs.links import CODECS_WITH_LINKS
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.block_reading import OpenFiles
from mlflow_ipfs.content.storage.local.index.cache_rows import cached_bytes
from mlflow_ipfs.content.storage.local.index.index_rows import MAX_VALUES, VALUES, select_many
from mlflow_ipfs.content.storage.maintenance import Usage, UsageReport
from mlflow_ipfs.content.storage.marking import links_of_node, read_node

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.index.layout import Layout
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext
    from mlflow_ipfs.content.system.disk import Disk

_UNNEEDED: Final = -1  # owner of a block that no group needs
_SHARED: Final = -2  # owner of a block that several groups need
_NODES: Final = 50  # read at a time; each may link to thousands of others

_Below: TypeAlias = "tuple[CID, CID]"  # a block, and the root below which it was found


def measure_usage(context: StoreContext, reader: BlockReader, groups: Sequence[Sequence[CID]]) -> UsageReport:
    """Return the size of the blocks below each group of roots, from one snapshot of the index.

    Raises:
        IntegrityError: a node cannot be read.
    """
    with context.database.snapshot() as connection:
        lengths = _read_lengths(connection)
        in_cache = cached_bytes(connection)
        owners = array("i", [_UNNEEDED]) * len(lengths)
        totals = [0] * len(groups)
        for group, roots in enumerate(groups):
            with Marker(context.layout, context.disk, reader) as marks:
                marks.take_fresh()
                marks.mark(connection, roots)
                for block_id in marks.take_fresh():
                    totals[group] += lengths[block_id]
                    owners[block_id] = group if owners[block_id] == _UNNEEDED else _SHARED
    own = dict.fromkeys((*range(len(groups)), _UNNEEDED, _SHARED), 0)
    for length, owner in zip(lengths, owners, strict=True):
        own[owner] += length
    usages = tuple(Usage(total, own[group]) for group, total in enumerate(totals))
    return UsageReport(usages, sum(lengths), own[_UNNEEDED], in_cache)


def _read_lengths(connection: sqlite3.Connection) -> array[int]:
    """Return the length of each block by the id of its row; 0 for unused ids."""
    last: int = connection.execute("SELECT coalesce(max(id), 0) FROM block").fetchone()[0]
    lengths: array[int] = array("q", [0]) * (last + 1)
    for block_id, length in connection.execute("SELECT id, length FROM block"):
        lengths[block_id] = length
    return lengths


class Row(NamedTuple):
    """The row of a block, with the name of the file that holds the block."""

    multihash: bytes
    id: int
    form: int
    data: bytes | None
    place_name: str | None
    offset: int
    length: int


class Bits:
    """A bit set that grows as needed."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, number: int) -> bool:
        """Set a bit. Return whether it was set before."""
        index, bit = number >> 3, 1 << (number & 7)
        if index >= len(self._bytes):
            self._bytes.extend(bytes(index + 1 + (index >> 3) - len(self._bytes)))
        was_set = bool(self._bytes[index] & bit)
        self._bytes[index] |= bit
        return was_set

    def __contains__(self, number: int) -> bool:
        index = number >> 3
        return index < len(self._bytes) and bool(self._bytes[index] & 1 << (number & 7))


class Marker:
    """Marker of all blocks below roots. ``mark`` may be called several times, each time with another snapshot.

    Args:
        layout: the paths of the store.
        disk: reads the nodes.
        reader: reads a node that is missing or damaged, in order to record and report the damage.
        pass_missing: whether to skip a node that is not in the store. Blocks below the node are not marked.

    Attributes:
        passed: multihashes of skipped blocks.
    """

    def __init__(self, layout: Layout, disk: Disk, reader: BlockReader, *, pass_missing: bool = False) -> None:
        self._pass_missing = pass_missing
        self.passed: set[bytes] = set()
        self._files = OpenFiles(layout, disk)
        self._reader = reader
        self._marked = Bits()
        self._walked = {codec: Bits() for codec in CODECS_WITH_LINKS}
        self._fresh: list[int] = []
        self._records_fresh = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._marked

    def take_fresh(self) -> list[int]:
        """Return the ids that were marked since the last call. The first call returns none and starts the recording."""
        self._records_fresh = True
        fresh, self._fresh = self._fresh, []
        return fresh

    def mark(self, connection: sqlite3.Connection, roots: Iterable[CID]) -> None:
        """Mark every block below the roots.

        Raises:
            IntegrityError: a node is missing or damaged, so the blocks that it needs are unknown.
        """
        waiting = ((root, root) for root in roots)
        stack: list[_Below] = []
        leaves: list[_Below] = []  # kept apart from the stack: a directory has many
        while batch := stack[-_NODES:] or list(islice(waiting, _NODES)):
            del stack[-_NODES:]
            for below in self._step(connection, batch):
                (stack if below[0].codec in CODECS_WITH_LINKS else leaves).append(below)
                if len(leaves) == MAX_VALUES:
                    self._mark_leaves(connection, leaves)
        self._mark_leaves(connection, leaves)

    def _mark_leaves(self, connection: sqlite3.Connection, leaves: list[_Below]) -> None:
        """Mark blocks without links, and empty the list."""
        if leaves:
            for _ in self._step(connection, leaves):
                pass
        leaves.clear()

    def _step(self, connection: sqlite3.Connection, batch: list[_Below]) -> Iterator[_Below]:
        """Mark a few blocks and yield the blocks that they link to."""
        rows = find_rows(connection, {cid.multihash for cid, _ in batch})
        nodes: list[tuple[Row, _Below]] = []
        for cid, root in batch:
            row = rows.get(cid.multihash)
            if row is not None:
                if not self._marked.add(row.id) and self._records_fresh:
                    self._fresh.append(row.id)
                is_node = cid.codec in CODECS_WITH_LINKS and row.form == LeafEncoding.RAW
                if is_node and not self._walked[cid.codec].add(row.id):
                    nodes.append((row, (cid, root)))
            elif self._pass_missing and cid.identity_data is None:
                self.passed.add(cid.multihash)
            elif cid.codec in CODECS_WITH_LINKS:
                yield from _links(cid, root, read_node(self._reader, cid, root))
        nodes.sort(key=lambda node: (node[0].place_name or "", node[0].offset))
        for row, (cid, root) in nodes:
            yield from _links(cid, root, self._read(row, cid, root))

    def _read(self, row: Row, cid: CID, root: CID) -> bytes:
        data = row.data if row.place_name is None else self._files.read(row.place_name, row.offset, row.length)
        if data is None or not cid.matches(data):
            return read_node(self._reader, cid, root)
        return data


def find_rows(connection: sqlite3.Connection, multihashes: Iterable[bytes]) -> dict[bytes, Row]:
    """Return the rows of the given blocks that have one, by multihash."""
    query = (
        "SELECT b.multihash, b.id, b.form, b.data, p.name, b.offset, b.length"  # noqa: S608 - fixed texts
        f" FROM block b LEFT JOIN place p ON p.id = b.place WHERE b.multihash IN {VALUES}"
    )
    return {row[0]: Row(*row) for row in select_many(connection, query, multihashes)}


def _links(cid: CID, root: CID, block: bytes) -> Iterable[_Below]:
    return [(link, root) for link in links_of_node(cid, block)]
