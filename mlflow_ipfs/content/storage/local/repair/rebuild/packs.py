"""Blocks of a pack, frame by frame. A frame consists of length, CID and block. Each block is hashed.

After a damaged frame, the scan searches for the next good frame by the beginning of its CID. Blocks that an old index
has in the damaged frames are checked, too.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.unixfs import LeafEncoding
from mlflow_ipfs.content.storage.local.files.packs import HEADER
from mlflow_ipfs.content.storage.local.index.index_rows import NewBlock
from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import describe
from mlflow_ipfs.content.varint import MAX_VARINT_BYTES, decode_varint, encode_varint
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow_ipfs.content.storage.local.repair.rebuild.file_view import FileView
    from mlflow_ipfs.content.storage.local.repair.rebuild.new_index import NewIndex

_MAX_CID_BYTES: Final = 256
_BATCH: Final = 50  # frames, each with a block of up to 2 MiB
_CID_BYTES: Final = 2  # of a CIDv1 before its multihash: version and codec
_SHA2_256: Final = b"\x12\x20"
_SEARCH_BYTES: Final = 1 << 16  # searched at a time


class _Frame(NamedTuple):
    """Frame with an undamaged block."""

    end: int
    row: NewBlock
    cid: CID
    block: bytes


def add_pack(
    new_index: NewIndex, place_id: int, file: FileView, recorded: Callable[[], Iterable[NewBlock]]
) -> tuple[int, str]:
    """Add the good blocks of a pack.

    Args:
        new_index: the new index.
        place_id: the pack's row.
        file: the pack.
        recorded: returns the blocks of the pack in an old index; called only if a frame is damaged.

    Returns:
        How many blocks are good; and a description of the damage, empty if the pack is undamaged.
    """
    good, problems = 0, list[str]()
    frames = _frames(file, problems)
    while batch := list(islice(frames, _BATCH)):
        kinds = [describe(frame.row.multihash, frame.block, frame.cid) for frame in batch]
        new_index.add_blocks(place_id, [frame.row for frame in batch], kinds)
        good += len(batch)
    for row in recorded() if problems else ():
        if new_index.find(row.multihash) is not None:
            continue
        if file.holds(row):  # only the frame's length or CID is damaged, so the codec is unknown
            kind = describe(row.multihash, file.read(row.offset, row.length))
            good += new_index.add_blocks(place_id, [row], [kind])
        else:
            new_index.add_bad(place_id, [row])
    return good, "; ".join(problems[:3])


def _frames(file: FileView, problems: list[str]) -> Iterator[_Frame]:
    """Yield the good frames, in order. Append a description of each gap between them to ``problems``."""
    position = len(HEADER)
    if file.peek(0, position) != HEADER:
        problems.append("its header is damaged")
    while position < file.size_bytes:
        frame = _read_frame(file, position)
        if frame is None:
            # The damage may be in the length, so it is not used to skip the frame.
            begin, position = position, _find_frame(file, position + 1)
            problems.append(f"the bytes from {begin} to {position} contain no undamaged block")
            continue
        yield frame
        position = frame.end


def _read_frame(file: FileView, position: int) -> _Frame | None:
    """Return the frame at a position; None if its length, CID or block is damaged."""
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
    row = NewBlock(cid.multihash, None, start + end, len(block), int(LeafEncoding.RAW))
    return _Frame(start + length, row, cid, block)


def _find_frame(file: FileView, start: int) -> int:
    """Return the next position at which a frame with a good block begins, or the end of the file.

    Search for the beginning of a sha2-256 multihash, which nearly every CID has, and try the lengths that may precede
    it.
    """
    position = start
    while position < file.size_bytes:
        piece = file.peek(position, _SEARCH_BYTES + 1)
        found = piece.find(_SHA2_256)
        while found >= 0:
            for begin in _possible_starts(file, position + found):
                if begin >= start and _read_frame(file, begin) is not None:
                    return begin
            found = piece.find(_SHA2_256, found + 1)
        position += _SEARCH_BYTES
    return file.size_bytes


def _possible_starts(file: FileView, multihash: int) -> Iterator[int]:
    """Yield the positions at which a frame may begin whose multihash is at a position.

    Try CIDv1, then CIDv0, with lengths of up to 4 bytes.
    """
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
