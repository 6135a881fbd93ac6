"""Chunkers: where a file is cut before its cuts become blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_USUAL_SIZES: Final = tuple(1 << power for power in range(20, 15, -1))  # bytes: 1 MiB to 64 KiB


class Chunker(Protocol):
    """Decides where a file is cut."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        """Yield the end offset of each cut, ascending; the last one is ``size_bytes``.

        Args:
            file: the file, positioned anywhere; may be read, need not be. Its position is the chunker's. It may be
                without a descriptor: a small file is in memory, and a stream has been written to a draft.
            size_bytes: size of the file; 0 yields nothing.
        """


@dataclass(frozen=True, slots=True)
class FixedSizeChunker:
    """Cuts of one size, the last one shorter."""

    chunk_bytes: int

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= MAX_LEAF_BYTES:
            msg = f"a chunk size of {self.chunk_bytes} bytes is outside 1 to {MAX_LEAF_BYTES}"
            raise SettingsError(msg)

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        """See ``Chunker``."""
        del file  # where to cut does not depend on the bytes
        yield from range(self.chunk_bytes, size_bytes, self.chunk_bytes)
        if size_bytes:
            yield size_bytes


def known_chunkers() -> list[Chunker]:
    """Return a chunker for every name that files are usually cut by, for a caller that has lost the name.

    A chunker without parameters is here under its name; of ``size-<bytes>``, the sizes that IPFS programs use.
    """
    return [parse_chunker(f"size-{size}") for size in _USUAL_SIZES]


def parse_chunker(text: str) -> Chunker:
    """Read a chunker's name as Kubo writes it, ``size-<bytes>``.

    Raises:
        SettingsError: an unknown name, or a size outside the limits.
    """
    match = re.fullmatch(r"size-([0-9]{1,12})", text)
    if match is None:
        msg = f"there is no chunker {text!r}; use size-<bytes>, for example size-262144"
        raise SettingsError(msg)
    return FixedSizeChunker(int(match[1]))


def cut_lengths(chunker: Chunker, file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Yield the length of each cut of a file.

    Args:
        chunker: decides where to cut.
        file: for the chunker, as ``Chunker.cuts`` takes it.
        size_bytes: size of the file.

    Raises:
        SettingsError: a cut is empty or too long, or the cuts do not cover the file.
    """
    start = 0
    for end in chunker.cuts(file, size_bytes):
        if not start < end <= start + MAX_LEAF_BYTES:
            msg = f"the chunker cut from {start} to {end}: a cut has 1 to {MAX_LEAF_BYTES} bytes"
            raise SettingsError(msg)
        yield end - start
        start = end
    if start != size_bytes:
        msg = f"the last cut of the chunker ends at byte {start} of {size_bytes}"
        raise SettingsError(msg)
