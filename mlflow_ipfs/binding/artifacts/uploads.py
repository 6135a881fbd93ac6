"""Uploads through the server: a thread reads the async stream of the event loop as a file."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import io
import os
import time
from typing import TYPE_CHECKING, BinaryIO, cast

from mlflow_ipfs.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

MAX_UPLOADS = 32  # concurrent uploads in one process; further uploads wait, and downloads use other threads
LEAST_BYTES = 64 << 10  # minimum to send within the timeout; a slower client would block a thread, and gc, for ever


async def publish_stream(
    chunks: AsyncIterable[bytes], publish: Callable[[BinaryIO], None], *, timeout_seconds: float
) -> None:
    """Call ``publish`` in a thread, with the stream as a file.

    The thread requests each chunk from the event loop when it needs one. So at most one chunk is in memory, and a fast
    client waits for a slow disk.

    Args:
        chunks: the request's body.
        publish: reads the file to its end and publishes the content.
        timeout_seconds: the longest wait for the client's next ``LEAST_BYTES``, in seconds.

    Raises:
        RemoteError: the client sent less than ``LEAST_BYTES`` within the timeout.
    """
    loop = asyncio.get_running_loop()
    stream = io.BufferedReader(_ChunkReader(chunks, loop, timeout_seconds), 1 << 20)
    await loop.run_in_executor(_upload_threads(os.getpid()), publish, cast("BinaryIO", stream))


@functools.cache
def _upload_threads(pid: int) -> concurrent.futures.ThreadPoolExecutor:
    """Return the upload threads of this process. A forked process has another id, and so gets its own threads."""
    del pid
    return concurrent.futures.ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="mlflow-ipfs-upload")


class _ChunkReader(io.RawIOBase):
    """A readable file over an async stream of chunks. Only one thread, other than the event loop's, may use it."""

    def __init__(self, chunks: AsyncIterable[bytes], loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        super().__init__()
        self._chunks = aiter(chunks)
        self._loop = loop
        self._timeout_seconds = timeout_seconds
        self._rest = memoryview(b"")
        self._waited_seconds = 0.0  # for the client, not for the disk, since the client last completed LEAST_BYTES
        self._received_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed says Buffer
        while not self._rest:
            chunk = self._next_chunk()
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next_chunk(self) -> bytes | None:
        began = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(self._take(), self._loop)
        try:
            chunk = future.result(max(self._timeout_seconds - self._waited_seconds, 0))
        except TimeoutError:
            future.cancel()
            msg = (
                f"the upload was aborted: the client sent {self._received_bytes} bytes in {self._timeout_seconds:g} s, "
                f"less than {LEAST_BYTES}; try again over a faster connection"
            )
            raise RemoteError(msg) from None
        self._count(len(chunk or b""), time.monotonic() - began)
        return chunk

    def _count(self, size_bytes: int, seconds: float) -> None:
        self._received_bytes += size_bytes
        self._waited_seconds += seconds
        if self._received_bytes >= LEAST_BYTES:
            self._received_bytes, self._waited_seconds = 0, 0.0

    async def _take(self) -> bytes | None:
        return await anext(self._chunks, None)
