"""Reads and hashes everything: finds what rotted without anybody looking.

A changed file shows by its stamp, a rotten sector does not. What is found bad is noted in the
index, so that adding the content again heals it; a damaged object goes to ``quarantine``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.blockstore.interface import LeafForm, ScrubReport
from mlflow_ipfs.content.blockstore.local.index import OBJECT
from mlflow_ipfs.content.blockstore.local.moving import CID_BYTES, cid_before
from mlflow_ipfs.content.blockstore.local.object_check import ObjectChecker
from mlflow_ipfs.content.cid import CID, DAG_PB, RAW
from mlflow_ipfs.content.unixfs import encode_leaf
from mlflow_ipfs.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mlflow_ipfs.content.blockstore.interface import BlockReader
    from mlflow_ipfs.content.blockstore.local.parts import Parts

_PAGE: Final = 1000
_ROWS: Final = "SELECT id, multihash, data, offset, length, form FROM block WHERE id > ? AND place"
_Row = tuple[int, bytes, "bytes | None", int, int, int]


@dataclass(slots=True)
class Scrubber:
    """One look at the whole store, place by place; others may publish and collect meanwhile.

    Args:
        parts: the store.
        reader: reads a block once more when it is bad, notes the damage and says what is wrong.
        progress: told how many bytes were read since it was told last.
        only: the rows of the files to look at; None: all. Blocks inside the index are looked at in any case.
    """

    parts: Parts
    reader: BlockReader
    progress: Callable[[int], None] | None = None
    only: Collection[int] | None = None
    _blocks: int = 0
    _size_bytes: int = 0
    _problems: dict[CID, str] = field(default_factory=dict)

    def run(self) -> ScrubReport:
        """Hash every block and every object."""
        with self.parts.database.read() as connection:
            places = connection.execute(
                "SELECT id, name, root, size FROM place WHERE condemned_at IS NULL OR condemned_at > 0 ORDER BY id"
            ).fetchall()
        checker = ObjectChecker(self.parts, self.reader, verify_always=True)
        for place_id, name, root, size_bytes in places:
            if self.only is not None and place_id not in self.only:
                continue
            if root is None or not self._check_object(checker, root, place_id, size_bytes):
                self._check_place(place_id, name)
        for row in self._rows("IS NULL"):
            self._check(row, CID(1, RAW, row[1]), row[2] or b"")
        return ScrubReport(self._blocks, self._size_bytes, tuple(self._problems.items()))

    def _check_object(self, checker: ObjectChecker, root: bytes, place_id: int, size_bytes: int) -> bool:
        """Hash a whole object, with the leaves whose rows are in other objects. False if its nodes are missing."""
        cid = CID(1, self._codec_of(root), root)
        try:
            if checker.file_path(cid) is None:
                return False
        except IntegrityError as error:
            self._problems[cid] = str(error)
        except NotFoundError:
            return False
        with self.parts.database.read() as connection:
            self._blocks += connection.execute("SELECT count(*) FROM block WHERE place = ?", (place_id,)).fetchone()[0]
        self._count(size_bytes)
        return True

    def _codec_of(self, root: bytes) -> int:
        """The index has no codecs; but the root of a file that is one raw leaf is that leaf."""
        with self.parts.database.read() as connection:
            row = connection.execute(
                "SELECT p.kind, b.form FROM block b JOIN place p ON p.id = b.place WHERE b.multihash = ?", (root,)
            ).fetchone()
        return RAW if row == (OBJECT, LeafForm.RAW) else DAG_PB

    def _check_place(self, place_id: int, name: str) -> None:
        disk = self.parts.disk
        try:
            descriptor = disk.open_to_read(self.parts.layout.folder / name)
        except FileNotFoundError:
            descriptor = None
        try:
            for row in self._rows(f"= {int(place_id)}"):
                _, multihash, _, offset, length, form = row
                prefix = block = b""
                if descriptor is not None:
                    start = max(0, offset - len(multihash) - CID_BYTES)
                    prefix = disk.read_at(descriptor, start, offset - start)
                    block = disk.read_at(descriptor, offset, length)
                is_wrapped = form == LeafForm.UNIXFS_FILE
                if is_wrapped:
                    cid = CID(1, DAG_PB, multihash)
                else:
                    cid = cid_before(prefix, multihash) if prefix else CID(1, RAW, multihash)
                self._check(row, cid, encode_leaf(block) if is_wrapped else block)
        finally:
            if descriptor is not None:
                disk.close(descriptor)

    def _check(self, row: _Row, cid: CID, block: bytes) -> None:
        if not cid.matches(block):
            try:
                self.reader.get(cid)  # a gc or a repair may have moved it
            except NotFoundError:
                return
            except IntegrityError as error:
                self._problems[cid] = str(error)
        self._blocks += 1
        self._count(row[4])

    def _count(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self.progress is not None:
            self.progress(size_bytes)

    def _rows(self, which: str) -> Iterator[_Row]:
        last = 0
        while True:
            with self.parts.database.read() as connection:
                rows = connection.execute(f"{_ROWS} {which} ORDER BY id LIMIT {_PAGE}", (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from rows
