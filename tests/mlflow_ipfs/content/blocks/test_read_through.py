from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks import read_through
from mlflow_ipfs.content.blocks.read_through import ReadThroughReader
from mlflow_ipfs.content.blocks.verifying import VerifyingReader
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.errors import IntegrityError, NotFoundError, RemoteError
from support.fetchers import MemoryFetcher
from support.storages import FullDisk, multihashes, publish_blocks, put_blocks, raw, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = [raw(b"block %d" % number) for number in range(600)]


class Tiers:
    """A local store with a source behind it."""

    def __init__(self, local: LocalStorage) -> None:
        self.local = local
        self.source = MemoryStorage()
        put_blocks(self.source, BLOCKS)
        self.fetcher = MemoryFetcher(self.source.blocks)
        self.reader = ReadThroughReader(
            local.blocks, VerifyingReader(self.fetcher, timeout_seconds=5), partial(local.publish, in_cache=True)
        )


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    with open_local_storage(tmp_path / "store", timeout_seconds=5) as local:
        yield Tiers(local)


def test_what_was_read_is_in_the_cache_after_a_flush(tiers: Tiers) -> None:
    cid, data = BLOCKS[0]
    assert tiers.reader.get(cid) == data
    assert not tiers.local.blocks.has(cid), "one block is not worth a publication"
    assert tiers.reader.get(cid) == data
    tiers.reader.flush()
    assert tiers.local.blocks.get(cid) == data
    assert tiers.reader.get(cid) == data
    assert tiers.fetcher.fetched == [cid]
    assert rows_of(tiers.local, "SELECT DISTINCT class FROM place") in ([("cache",)], [])


def test_blocks_are_published_in_batches(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_through, "BATCH_BLOCKS", 100)
    for cid, data in BLOCKS[:250]:
        assert tiers.reader.get(cid) == data
    assert len(list(multihashes(tiers.local))) == 200
    tiers.reader.flush()
    assert len(list(multihashes(tiers.local))) == 250


def test_a_batch_is_limited_in_bytes(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_through, "BATCH_BYTES", 20)
    for cid, _ in BLOCKS[:3]:
        tiers.reader.get(cid)
    assert len(list(multihashes(tiers.local))) == 3


def test_many_come_from_both_places_in_order(tiers: Tiers) -> None:
    put_blocks(tiers.local, BLOCKS[5:9])
    wanted = [*BLOCKS[3:12], BLOCKS[6], BLOCKS[3]]
    assert list(tiers.reader.get_many([cid for cid, _ in wanted])) == [data for _, data in wanted]
    assert tiers.fetcher.fetched == [cid for cid, _ in [*BLOCKS[3:5], *BLOCKS[9:12]]]
    assert list(tiers.reader.get_many([])) == []


def test_sizes_and_presence_cover_both_places(tiers: Tiers) -> None:
    put_blocks(tiers.local, BLOCKS[:1])
    for cid, data in BLOCKS[:2]:
        assert tiers.reader.has(cid)
        assert tiers.reader.get_size(cid) == len(data)
    assert not tiers.reader.has(CID.of(b"nowhere"))


def test_a_block_that_is_nowhere_is_not_found_and_both_places_are_named(tiers: Tiers) -> None:
    cid = CID.of(b"nowhere")
    with pytest.raises(NotFoundError, match=f"(?s){cid}.*{tiers.local.directory}.*memory://source"):
        tiers.reader.get(cid)


def test_a_source_that_cannot_be_reached_is_not_an_absent_block(tiers: Tiers) -> None:
    tiers.fetcher.is_away = True
    with pytest.raises(RemoteError):
        tiers.reader.get(BLOCKS[0][0])
    with pytest.raises(RemoteError):
        tiers.reader.has(BLOCKS[0][0])
    put_blocks(tiers.local, BLOCKS[:1])
    assert tiers.reader.get(BLOCKS[0][0]) == BLOCKS[0][1], "local content needs no source"


def test_a_lie_is_refused_and_not_cached(tiers: Tiers) -> None:
    cid = BLOCKS[0][0]
    tiers.fetcher.replaced[cid] = b"a lie"
    with pytest.raises(IntegrityError, match="memory://source"):
        tiers.reader.get(cid)
    tiers.reader.flush()
    assert list(multihashes(tiers.local)) == []


def test_damage_is_read_from_the_source_and_else_named(tiers: Tiers) -> None:
    data = bytes(range(256)) * 400
    [cid] = publish_blocks(tiers.local, data)
    [(name,)] = rows_of(tiers.local, "SELECT name FROM place")
    path = tiers.local.directory / name
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(IntegrityError, match=f"{cid} cannot be read"):
        tiers.reader.get(cid)
    put_blocks(tiers.source, [(cid, data)])
    assert tiers.reader.get(cid) == data
    assert list(tiers.reader.get_many([cid])) == [data]
    tiers.local.heal_from(VerifyingReader(tiers.fetcher, timeout_seconds=5))
    assert tiers.reader.get(cid) == data
    tiers.local.heal_from(None)
    assert tiers.local.blocks.get(cid) == data, "healing replaces what is damaged; the cache does not"


def test_without_room_for_the_cache_reading_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = FullDisk()
    with open_local_storage(tmp_path / "store", disk=disk) as local:
        tiers = Tiers(local)
        disk.room_for = 0
        assert [tiers.reader.get(cid) for cid, _ in BLOCKS] == [data for _, data in BLOCKS]
        tiers.reader.flush()
        assert "not stored in the cache" in caplog.text
        disk.room_for = 1000
        assert list(multihashes(local)) == []


def test_threads_share_a_reader(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_through, "BATCH_BLOCKS", 16)
    found: list[list[bytes]] = []

    def read() -> None:
        found.append([tiers.reader.get(cid) for cid, _ in BLOCKS])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[data for _, data in BLOCKS]] * 4
    tiers.reader.flush()
    assert len(list(multihashes(tiers.local))) == len(BLOCKS)
    assert tiers.reader._fetched_bytes == 0


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(tiers: Tiers) -> None:
    with tiers.reader._publishing, tiers.reader._guard:
        child = os.fork()
        if child == 0:
            try:
                data = tiers.reader.get(BLOCKS[0][0])
                tiers.reader.flush()
                os._exit(0 if data == BLOCKS[0][1] else 1)
            except BaseException:  # noqa: BLE001 - a child of a test must not go on as pytest
                os._exit(2)
    assert wait_for(child) == 0


def wait_for(child: int) -> int:
    """The exit status of a process; it is killed after 20 seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
