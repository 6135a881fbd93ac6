"""Blocks of a pack, frame by frame: each stands behind its length and its CID, and is hashed.

Behind a frame that is damaged, be it in its length, its CID or its block, the next good one is looked for
by its CID; and what an old index knows of the pack is used as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blockstore.interface import MAX_BLOCK_BYTES, LeafForm
from mlflow_ipfs.content.blockstore.local.index import NewBlock
from mlflow_ipfs.content.blockstore.local.packs import HEADER
from mlflow_ipfs.content.blockstore.local.rebuild.draft import Note, describe
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.varint import MAX_VARINT_BYTES, decode_varint, encode_varint
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_ipfs.content.blockstore.local.rebuild.draft import IndexDraft
    from mlflow_ipfs.content.blockstore.local.rebuild.file_view import FileView

_MAX_CID_BYTES: Final = 256
_BATCH: Final = 2000
_CID_BYTES: Final = 2  # of a CIDv1 before its multihash: version and codec
_SHA2_256: Final = b"\x12\x20"
_LOOK_BYTES: Final = 1 << 16  # how much is looked through at a time


class _Frame(NamedTuple):
    """A good block and its place."""

    end: int
    row: NewBlock
    cid: CID
    block: bytes


def add_pack(
    draft: IndexDraft, place_id: int, file: FileView, old_rows: Callable[[], Iterable[NewBlock]]
) -> tuple[int, str]:
    """Add what is good in a pack.

    Args:
        draft: the new index.
        place_id: the pack's row.
        file: the pack.
        old_rows: what an old index says of it; asked only if something is wrong.

    Returns:
        How many blocks are good, and what is wrong, if something is.
    """
    good, problems = 0, list[str]()
    batch = _Batch(draft, place_id)
    for frame in _frames(file, problems):
        batch.add(frame.row, describe(frame.row.multihash, frame.block, frame.cid))
        good += 1
    if problems:
        for row in old_rows():
            good += _add_old(draft, batch, place_id, file, row)
    batch.flush()
    return good, "; ".join(problems[:3])


def _add_old(draft: IndexDraft, batch: _Batch, place_id: int, file: FileView, row: NewBlock) -> bool:
    """Add a block where an old index has it. Returns whether that is new."""
    if not file.holds(row):
        draft.add_bad(place_id, [row])
        return False
    is_new = draft.find(row.multihash) is None
    # What stands before it was damaged, else it would have been found there: nothing says which codec it has.
    batch.add(row, describe(row.multihash, file.read(row.offset, row.length)))
    return is_new


class _Batch:
    """Writes rows some thousand at a time."""

    def __init__(self, draft: IndexDraft, place_id: int) -> None:
        self._draft = draft
        self._place_id = place_id
        self._rows: list[NewBlock] = []
        self._notes: list[Note] = []

    def add(self, row: NewBlock, note: Note) -> None:
        self._rows.append(row)
        self._notes.append(note)
        if len(self._rows) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        self._draft.add_blocks(self._place_id, self._rows, self._notes)
        self._rows.clear()
        self._notes.clear()


def _frames(file: FileView, problems: list[str]) -> Iterator[_Frame]:
    """The good frames, in order. What lies between them is noted among the problems."""
    position = len(HEADER)
    if file.peek(0, position) != HEADER:
        problems.append("its header is damaged")
    while position < file.size_bytes:
        frame = _read_frame(file, position)
        if frame is None:
            # The length may be what is damaged, so it is not followed.
            begin, position = position, _find_frame(file, position + 1)
            problems.append(f"there is no good block between bytes {begin} and {position}")
            continue
        yield frame
        position = frame.end


def _read_frame(file: FileView, position: int) -> _Frame | None:
    """The frame at a position; None if there is none, or its block is bad."""
    try:
        length, after = decode_varint(file.peek(position, MAX_VARINT_BYTES))
        start = position + after
        if not 1 <= length <= MAX_BLOCK_BYTES + _MAX_CID_BYTES or start + length > file.size_bytes:
            return None
        section = file.peek(start, length)
        cid, end = CID.decode(section)
        cid.check_hash()
    except (InvalidDataError, InvalidCIDError):
        return None
    block = section[end:]
    if len(block) > MAX_BLOCK_BYTES or not cid.matches(block):
        return None
    row = NewBlock(cid.multihash, None, start + end, len(block), int(LeafForm.RAW))
    return _Frame(start + length, row, cid, block)


def _find_frame(file: FileView, start: int) -> int:
    """The next position at which a frame with a good block begins; the end of the file if there is none.

    Looks for the beginning of a sha2-256 multihash, which nearly every CID has, and tries the lengths that may stand
    before it.
    """
    position = start
    while position < file.size_bytes:
        piece = file.peek(position, _LOOK_BYTES + 1)
        found = piece.find(_SHA2_256)
        while found >= 0:
            for begin in _possible_starts(file, position + found):
                if begin >= start and _read_frame(file, begin) is not None:
                    return begin
            found = piece.find(_SHA2_256, found + 1)
        position += _LOOK_BYTES
    return file.size_bytes


def _possible_starts(file: FileView, multihash: int) -> Iterator[int]:
    """Where a frame may begin whose CID has its multihash at a position: CIDv1, then CIDv0; lengths of up to 4 bytes."""
    for cid_bytes in (_CID_BYTES, 0):
        for length_bytes in (4, 3, 2, 1):
            begin = multihash - cid_bytes - length_bytes
            if begin >= len(HEADER):
                number = file.peek(begin, length_bytes)
                try:
                    value, end = decode_varint(number)
                except InvalidDataError:
                    continue
                if end == length_bytes and encode_varint(value) == number:
                    yield begin
