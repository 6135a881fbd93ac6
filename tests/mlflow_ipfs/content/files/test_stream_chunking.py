"""One content, one CID: a file, a stream and an upload are cut at the same offsets, whatever the chunker."""

from __future__ import annotations

import errno
import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.profiles import PROFILES, profile_named
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.content.system.disk import Disk
from mlflow_ipfs.errors import SettingsError, StoreFullError
from support.chunkers import CHUNKERS, DATA, MIB, SIZES, HalvingChunker, TrailerChunker
from support.faulty_disk import FaultyDisk
from support.storages import check_sound, leftovers, multihashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.files.chunker import Chunker

pytestmark = pytest.mark.slow

TOP = MfsPath("mlflow")


class Pipe(io.RawIOBase):
    """Gives a stream's bytes a few at a time and once only; cannot be rewound, has no size."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        data = self._data.read(min(size, 99_991))
        self.read_bytes += len(data)
        return data


def open_drafts(directory: Path) -> list[str]:
    """Files below a directory that this process holds open although they have no name any more."""
    names = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [name for name in names if name.startswith(str(directory)) and name.endswith("(deleted)")]


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
            with pytest.raises(SettingsError, match="last chunk of the chunker ends"):
                store.add_stream(pipe(size))
        assert leftovers(tmp_path / "store") == []
        assert list(multihashes(store.storage)) == []


class BrokenDisk(Disk):
    """Cannot read back what was written."""

    def read_at(self, descriptor: int, offset: int, length: int) -> bytes:
        del descriptor, offset, length
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc on this system")
def test_a_disk_that_fails_while_a_spooled_stream_is_read_back(tmp_path: Path) -> None:
    with ContentStore(open_local_storage(tmp_path / "store", disk=BrokenDisk()), chunker=HalvingChunker()) as store:
        with pytest.raises(OSError, match="Input/output error"):
            store.add_stream(pipe(len(DATA)))
        assert leftovers(tmp_path / "store") == []
        assert open_drafts(tmp_path) == []


def test_hash_only_of_a_spooled_stream_needs_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "write", refuse)
    with ContentStore(MemoryStorage()) as store:
        with pytest.raises(StoreFullError, match="point TMPDIR to a larger disk"):
            store.add_stream(pipe(len(DATA)), chunker=HalvingChunker(), only_hash=True)
        store.add_stream(pipe(len(DATA)), only_hash=True)


@pytest.mark.parametrize("chunker", [HalvingChunker(), None], ids=["spooled", "fixed"])
def test_what_is_decided_is_logged(chunker: Chunker | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "large").write_bytes(DATA)
    (directory / "small").write_bytes(b"small")
    (directory / ".hidden").write_bytes(b"hidden")
    (directory / "link").symlink_to("small")
    with caplog.at_level(logging.DEBUG, "mlflow_ipfs.content"), ContentStore(MemoryStorage(), chunker=chunker) as store:
        added = store.add(directory, hidden=False)
        by_path = caplog.text
        caplog.clear()
        store.files.put_stream(TOP.join("s"), pipe(len(DATA)))
    for line in (
        f"import with profile unixfs-v1-2025 and chunker {chunker or FixedSizeChunker(MIB)}",
        f"'{directory}': hidden entries left out: 1",
        f"'{directory}/link': stored as a symlink",
        f"'{directory}/small': 5 bytes, stored as small blocks",
        f"'{directory}/large': {len(DATA)} bytes, stored as one contiguous file",
        f"{added.cid}: {len(DATA) + 5} bytes in files, {added.new_bytes} bytes new in the store",
    ):
        assert line in by_path
    how = "written before it is split" if chunker else "split while it is read"
    assert f"stream: stored as one contiguous file, {how}" in caplog.text
    assert f"{TOP.join('s')}: " in caplog.text
    assert "0 bytes new in the store" in caplog.text
