"""The hand-over of an upload from a server's event loop to a thread."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, BinaryIO

import pytest

from mlflow_ipfs.binding.artifacts.uploads import BATCH_BYTES, LEAST_BYTES, publish_stream
from mlflow_ipfs.errors import RemoteError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

DATA = random.Random(3).randbytes(5 * BATCH_BYTES + 7)


async def stream_of(chunks: Iterable[bytes], pause_seconds: float = 0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_seconds)
        yield chunk
    yield b""  # as from Starlette, at the end of a body


def cut(data: bytes, size_bytes: int) -> list[bytes]:
    return [data[start : start + size_bytes] for start in range(0, len(data), size_bytes)]


def upload(chunks: AsyncIterator[bytes], timeout_seconds: float = 20) -> tuple[bytes, str]:
    """Return the bytes that a thread reads, and the name of the thread."""
    found: list[tuple[bytes, str]] = []

    def publish(stream: BinaryIO) -> None:
        found.append((stream.read(), threading.current_thread().name))

    asyncio.run(publish_stream(chunks, publish, timeout_seconds=timeout_seconds))
    return found[0]


@pytest.mark.parametrize("size_bytes", [0, 1, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, BATCH_BYTES, len(DATA)])
@pytest.mark.parametrize("chunk_bytes", [1000, 64 << 10, 3 * BATCH_BYTES])
def test_the_thread_reads_what_the_client_sent(size_bytes: int, chunk_bytes: int) -> None:
    data, thread = upload(stream_of(cut(DATA[:size_bytes], chunk_bytes)))
    assert data == DATA[:size_bytes]
    assert thread.startswith("mlflow-ipfs-upload")


def test_a_slow_but_steady_client_is_not_aborted() -> None:
    """Each chunk takes longer than a batch may, and all of them together take longer than the timeout."""
    chunks = cut(DATA[: 12 * LEAST_BYTES], LEAST_BYTES)
    assert upload(stream_of(chunks, pause_seconds=0.1), timeout_seconds=0.6)[0] == b"".join(chunks)


@pytest.mark.parametrize("sent_bytes", [10, LEAST_BYTES, 3 * BATCH_BYTES])
def test_a_client_that_stalls_is_aborted(sent_bytes: int) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield DATA[:sent_bytes]
        await asyncio.sleep(60)
        yield b"late"

    with pytest.raises(RemoteError, match="the client sent"):
        upload(stalling(), timeout_seconds=0.3)


def test_an_error_of_the_client_ends_the_upload() -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        upload(breaking())


def test_when_publishing_fails_the_rest_is_not_gathered() -> None:
    gathered: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while len(gathered) < 10_000:
            gathered.append(1)
            yield DATA[:BATCH_BYTES]
            await asyncio.sleep(0)

    def publish(stream: BinaryIO) -> None:
        stream.read(BATCH_BYTES)
        msg = "the disk is full"
        raise StoreFullError(msg)

    with pytest.raises(StoreFullError):
        asyncio.run(publish_stream(endless(), publish, timeout_seconds=20))
    assert len(gathered) < 20
