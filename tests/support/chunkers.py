"""Chunkers of each kind, and sizes of content around the limits."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from mlflow_ipfs.content.files.chunker import Chunker, parse_chunker

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
DATA = random.Random(7).randbytes(3 * MIB + 17)


@dataclass(frozen=True)
class HalvingChunker:
    """Chunker that needs the size: it cuts at the middle of the file, and every 100,000 bytes."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        del file
        middle = size_bytes // 2
        ends = {*range(100_000, middle, 100_000), middle, *range(middle + 100_000, size_bytes, 100_000), size_bytes}
        yield from sorted(ends - {0})


@dataclass(frozen=True)
class TrailerChunker:
    """Chunker that reads the end of the file for each cut, as for a trailer with a table of offsets."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        step = 70_000
        for end in range(step, size_bytes, step):
            file.seek(-1, os.SEEK_END)  # each time, because only the chunker changes the position
            assert file.read(1)[0] == DATA[size_bytes - 1]
            assert file.seek(end - 4) == file.tell() == end - 4
            assert file.read(8) == DATA[end - 4 : min(end + 4, size_bytes)]
            yield end
        if size_bytes:
            yield size_bytes


# Named chunkers with sizes around those of the profiles and around the limits, and two that need the file.
CHUNKERS: dict[str, Chunker] = {
    **{f"size-{size}": parse_chunker(f"size-{size}") for size in (1000, 262_143, 262_144, MIB - 1, MIB)},
    "halving": HalvingChunker(),
    "trailer": TrailerChunker(),
}
SIZES = [0, 1, 999, 1000, 262_143, 262_144, 262_145, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]
