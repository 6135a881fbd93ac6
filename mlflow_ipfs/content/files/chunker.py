"""Chunkers, which split a file into the chunks that become its leaf blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from mlflow_ipfs.content.blocks.base import MAX_LEAF_BYTES
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMON_SIZES: Final = tuple(1 << power for power in range(20, 15, -1))  # bytes: 1 MiB to 64 KiB


class Chunker(Protocol):
    """Strategy that decides where a file is split into chunks."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        """Yield the end offset of each chunk in ascending order. The last offset is ``size_bytes``.

        Args:
            file: the file, at any position. The chunker may read it and change its position. The file may have no
                descriptor: a small file is in memory, and a stream was written to a draft.
            size_bytes: size of the file; 0 yields no offset.
        """


@dataclass(frozen=True, slots=True)
class FixedSizeChunker:
    """Chunker with chunks of one size. The last chunk may be shorter."""

    chunk_bytes: int

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= MAX_LEAF_BYTES:
            msg = f"the chunk size {self.chunk_bytes} is out of range; use 1 to {MAX_LEAF_BYTES} bytes"
            raise SettingsError(msg)

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        """Yield the end offset of each chunk. See ``Chunker.cuts``."""
        del file  # the offsets do not depend on the bytes
        yield from range(self.chunk_bytes, size_bytes, self.chunk_bytes)
        if size_bytes:
            yield size_bytes


def known_chunkers() -> list[Chunker]:
    """Return the chunkers in common use, for a caller that does not know which chunker split a file.

    The list has the sizes of ``size-<bytes>`` that IPFS programs use. A chunker without parameters belongs here, too.
    """
    return [parse_chunker(f"size-{size}") for size in _COMMON_SIZES]


def parse_chunker(text: str) -> Chunker:
    """Return the chunker for a name in Kubo's notation, ``size-<bytes>``.

    Raises:
        SettingsError: the name is unknown, or the size is out of range.
    """
    match = re.fullmatch(r"size-([0-9]{1,12})", text)
    if match is None:
        msg = f"unknown chunker {text!r}; use size-<bytes>, for example size-262144"
        raise SettingsError(msg)
    return FixedSizeChunker(int(match[1]))


def chunk_lengths(chunker: Chunker, file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Yield the length in bytes of each chunk of a file.

    Args:
        chunker: decides where to split the file.
        file: passed to ``Chunker.cuts``.
        size_bytes: size of the file.

    Raises:
        SettingsError: a chunk is empty or too long, or the chunks do not cover the file.
    """
    start = 0
    for end in chunker.cuts(file, size_bytes):
        if not start < end <= start + MAX_LEAF_BYTES:
            msg = (
                f"the chunker returned a chunk from byte {start} to byte {end}, but a chunk must have "
                f"1 to {MAX_LEAF_BYTES} bytes; use another chunker"
            )
            raise SettingsError(msg)
        yield end - start
        start = end
    if start != size_bytes:
        msg = f"the last chunk of the chunker ends at byte {start} of {size_bytes}; use another chunker"
        raise SettingsError(msg)
