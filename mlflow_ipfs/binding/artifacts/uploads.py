"""Uploads through the server: a thread reads the async stream of the event loop as a file.

A thread and the event loop hand over batches of chunks, because one hand-over takes as long as hashing a chunk. The loop
gathers the next batch while the thread works on the current one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import io
import os
import time
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from mlflow_ipfs.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

MAX_UPLOADS = 32  # concurrent uploads in one process; further uploads wait, and downloads use other threads
LEAST_BYTES = 64 << 10  # minimum to send within the timeout; a slower client would block a thread, and gc, for ever
BATCH_BYTES: Final = 1 << 20  # in memory for each upload: two batches, and one chunk
_GATHER_SECONDS: Final = 0.02  # a batch that takes longer to fill is handed over as it is


async def publish_stream(
    chunks: AsyncIterable[bytes], publish: Callable[[BinaryIO], None], *, timeout_seconds: float
) -> None:
    """Call ``publish`` in a thread, with the stream as a file.

    A fast client waits for a slow disk. A small upload is received before the thread starts.

    Args:
        chunks: the request's body.
        publish: reads the file to its end and publishes the content.
        timeout_seconds: the longest wait for the client's next ``LEAST_BYTES``, in seconds.

    Raises:
        RemoteError: the client sent less than ``LEAST_BYTES`` within the timeout.
    """
    loop = asyncio.get_running_loop()
    iterator = aiter(chunks)
    first, has_ended = await _receive_first(iterator, timeout_seconds)
    if has_ended:
        await loop.run_in_executor(_upload_threads(os.getpid()), publish, cast("BinaryIO", io.BytesIO(first)))
        return
    reader = _BatchReader(first, iterator, loop, timeout_seconds)
    stream = io.BufferedReader(reader, BATCH_BYTES)
    try:
        await loop.run_in_executor(_upload_threads(os.getpid()), publish, cast("BinaryIO", stream))
    finally:
        reader.cancel()


async def _receive_first(iterator: AsyncIterator[bytes], timeout_seconds: float) -> tuple[bytes, bool]:
    """Receive at least ``LEAST_BYTES``, or all. Return the bytes, and True if these are all."""
    received = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            while len(received) < LEAST_BYTES:
                chunk = await anext(iterator, None)
                if chunk is None:
                    return bytes(received), True
                received += chunk
    except TimeoutError:
        raise _too_slow(len(received), timeout_seconds) from None
    return bytes(received), False


def _too_slow(received_bytes: int, timeout_seconds: float) -> RemoteError:
    return RemoteError(
        f"the upload was aborted: the client sent {received_bytes} bytes in {timeout_seconds:g} s, less than "
        f"{LEAST_BYTES}; try again over a faster connection"
    )


@functools.cache
def _upload_threads(pid: int) -> concurrent.futures.ThreadPoolExecutor:
    """Return the upload threads of this process. A forked process has another id, and so gets its own threads."""
    del pid
    return concurrent.futures.ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="mlflow-ipfs-upload")


class _BatchReader(io.RawIOBase):
    """A readable file over an async stream of chunks. Only one thread, other than the event loop's, may read it."""

    def __init__(
        self, first: bytes, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop, timeout_seconds: float
    ) -> None:
        super().__init__()
        self._chunks = chunks
        self._loop = loop
        self._timeout_seconds = timeout_seconds
        self._ready = deque([memoryview(first)])
        self._waited_seconds = 0.0  # for the client, not for the disk, since the client last completed LEAST_BYTES
        self._received_bytes = 0
        self._has_ended = False
        self._next: concurrent.futures.Future[tuple[list[bytes], bool]] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed says Buffer
        if self._next is None and not self._has_ended:
            self._request()
        while not self._ready:
            if self._has_ended:
                return 0
            self._take_batch()
        filled = 0
        while self._ready and filled < len(buffer):
            chunk = self._ready.popleft()
            count = min(len(buffer) - filled, len(chunk))
            buffer[filled : filled + count] = chunk[:count]
            filled += count
            if count < len(chunk):
                self._ready.appendleft(chunk[count:])
        return filled

    def cancel(self) -> None:
        """Stop gathering chunks."""
        if self._next is not None:
            self._next.cancel()

    def _request(self) -> None:
        """Let the event loop gather the next batch."""
        self._next = asyncio.run_coroutine_threadsafe(self._gather(), self._loop)

    def _take_batch(self) -> None:
        """Wait for the requested batch, and request the one after it."""
        assert self._next is not None, "a batch was requested"
        began = time.monotonic()
        try:
            batch, self._has_ended = self._next.result(max(self._timeout_seconds - self._waited_seconds, 0))
        except TimeoutError:
            self._next.cancel()
            raise _too_slow(self._received_bytes, self._timeout_seconds) from None
        self._count(sum(map(len, batch)), time.monotonic() - began)
        self._ready.extend(memoryview(chunk) for chunk in batch if chunk)
        if not self._has_ended:
            self._request()

    def _count(self, size_bytes: int, seconds: float) -> None:
        self._received_bytes += size_bytes
        self._waited_seconds += seconds
        if self._received_bytes >= LEAST_BYTES:
            self._received_bytes, self._waited_seconds = 0, 0.0

    async def _gather(self) -> tuple[list[bytes], bool]:
        """Return the next chunks, fewer than a batch if the client is slow; and True if these are the last ones."""
        batch: list[bytes] = []
        size_bytes, ends_at = 0, self._loop.time() + _GATHER_SECONDS
        while size_bytes < BATCH_BYTES:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return batch, True
            batch.append(chunk)
            size_bytes += len(chunk)
            if self._loop.time() >= ends_at:
                break
        return batch, False
