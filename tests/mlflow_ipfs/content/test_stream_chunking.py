"""One content, one CID: a file, a stream and an upload are cut at the same offsets, whatever the chunker."""

from __future__ import annotations

import errno
import io
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import pytest

from mlflow_ipfs.content.blockstore.local import open_local_storage
from mlflow_ipfs.content.blockstore.memory import MemoryStorage
from mlflow_ipfs.content.chunker import Chunker, FixedSizeChunker, parse_chunker
from mlflow_ipfs.content.file_reader import open_unixfs
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.profiles import PROFILES, profile_named
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import SettingsError, StoreFullError
from support.faulty_disk import FaultyDisk
from support.storages import check_sound, leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
TOP = MfsPath("mlflow")
DATA = random.Random(7).randbytes(3 * MIB + 17)


@dataclass(frozen=True)
class HalvingChunker:
    """Needs the size: cuts at the middle of the file, then every 100,000 bytes."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        del file
        middle = size_bytes // 2
        ends = {*range(100_000, middle, 100_000), middle, *range(middle + 100_000, size_bytes, 100_000), size_bytes}
        yield from sorted(ends - {0})


@dataclass(frozen=True)
class TrailerChunker:
    """Reads the file: the last byte decides the length of each cut, as a trailer with a table of offsets does."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        step = 70_000
        for end in range(step, size_bytes, step):
            file.seek(-1, os.SEEK_END)  # again and again: the position is the chunker's own
            assert file.read(1)[0] == DATA[size_bytes - 1]
            assert file.seek(end - 4) == file.tell() == end - 4
            assert file.read(8) == DATA[end - 4 : min(end + 4, size_bytes)]
            yield end
        if size_bytes:
            yield size_bytes


CHUNKERS: dict[str, Chunker] = {
    **{f"size-{size}": parse_chunker(f"size-{size}") for size in (1000, 262_143, 262_144, MIB - 1, MIB)},
    "halving": HalvingChunker(),
    "trailer": TrailerChunker(),
}
SIZES = [0, 1, 999, 1000, 262_143, 262_144, 262_145, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]


class Pipe(io.RawIOBase):
    """Gives a stream's bytes a few at a time and once only; can't be rewound, has no size."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        data = self._data.read(min(size, 99_991))
        self.read_bytes += len(data)
        return data


def pipe(size: int) -> BinaryIO:
    return Pipe(DATA[:size])  # type: ignore[return-value] # as much of one as is used


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("chunker", CHUNKERS)
@pytest.mark.parametrize("size", SIZES)
def test_a_stream_gets_the_cid_of_the_file(size: int, chunker: str, profile: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA[:size])
    seen: list[int] = []
    with ContentStore(MemoryStorage(), profile=profile_named(profile), chunker=CHUNKERS[chunker]) as store:
        expected = store.add(tmp_path / "file", only_hash=True).cid
        assert store.add_stream(pipe(size), only_hash=True).cid == expected
        assert store.add_stream(pipe(size)).cid == expected
        assert store.files.put_stream(TOP.join("s"), pipe(size), progress=seen.append).cid == expected
        assert store.files.put_file(TOP.join("f"), tmp_path / "file").cid == expected
        assert open_unixfs(store.storage.blocks, expected).read() == DATA[:size]
    assert sum(seen) == size, "each byte is counted once"


@pytest.mark.parametrize("chunker", CHUNKERS)
@pytest.mark.parametrize("size", [1000, 3 * MIB + 17])
def test_a_call_may_name_another_chunker_than_the_store(size: int, chunker: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA[:size])
    with ContentStore(MemoryStorage(), chunker=CHUNKERS[chunker]) as store:
        expected = store.add(tmp_path / "file").cid
    with ContentStore(MemoryStorage(), chunker=FixedSizeChunker(777)) as store:
        cut = CHUNKERS[chunker]
        assert store.add_stream(pipe(size), chunker=cut).cid == expected
        assert store.files.put_stream(TOP.join("s"), pipe(size), chunker=cut).cid == expected
        assert store.files.put_file(TOP.join("f"), tmp_path / "file", chunker=cut).cid == expected
        (entry,) = store.files.put_tree(TOP.join("t"), tmp_path, chunker=cut)
        assert entry.cid == expected
        own = store.files.put_stream(TOP.join("own"), pipe(size))
        assert own.cid == store.add(tmp_path / "file").cid != expected


@pytest.mark.parametrize("chunker", CHUNKERS)
def test_a_stream_is_kept_like_a_file(chunker: str, tmp_path: Path) -> None:
    """In the local store: the bytes are contiguous on disk, found again when they come by path, and leave no draft."""
    (tmp_path / "file").write_bytes(DATA)
    storage = open_local_storage(tmp_path / "store")
    with ContentStore(storage, chunker=CHUNKERS[chunker]) as store:
        added = store.add_stream(pipe(len(DATA)))
        path = store.local_path(added.cid)
        assert path is not None
        assert path.read_bytes() == DATA
        assert store.add(tmp_path / "file").new_bytes == 0
        assert store.add_stream(pipe(len(DATA))).new_bytes == 0
        assert store.verify(added.cid).problems == []
        assert leftovers(tmp_path / "store") == []


def test_a_spooled_stream_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk(errno.ENOSPC)
    storage = open_local_storage(tmp_path / "store", disk=disk)
    with ContentStore(storage, chunker=HalvingChunker()) as store:
        disk.passing = 3
        with pytest.raises(StoreFullError):
            store.add_stream(pipe(len(DATA)))
        assert disk.failed == "write"
        assert leftovers(tmp_path / "store") == []
        check_sound(storage)


def test_a_stream_is_read_once(tmp_path: Path) -> None:
    """Spooling or not, the client sends its bytes once; and one that breaks keeps nothing."""
    with ContentStore(open_local_storage(tmp_path / "store"), chunker=TrailerChunker()) as store:
        source = pipe(len(DATA))
        store.add_stream(source, pin=None)
        assert source.read_bytes == len(DATA)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ShortChunker:
    """Forgets the end of the file."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        del file
        yield size_bytes // 8


def test_a_chunker_that_does_not_cover_the_stream_is_an_error(tmp_path: Path) -> None:
    with ContentStore(open_local_storage(tmp_path / "store"), chunker=ShortChunker()) as store:
        for size in (1000, len(DATA)):
            with pytest.raises(SettingsError, match="last cut of the chunker ends"):
                store.add_stream(pipe(size))
        assert leftovers(tmp_path / "store") == []
        assert list(store.storage.blocks.multihashes()) == []
