"""Reading and hashing ahead on threads, while the caller takes the results in its own order.

What is asked for does not change with the number of threads: results, errors and their order are
those of one thread. Hashing and reading let go of Python's lock, so the threads really work at once.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from types import TracebackType

READ_THREADS: Final = min(8, os.cpu_count() or 1)
BATCH_BYTES: Final = 4 << 20  # handed to a thread at once: handing over and waiting cost as much as hashing 100 KiB
_MAX_KEPT: Final = 1024  # results that may lie about until they are taken; beyond it nothing more is begun
_MAPPED_BATCHES: Final = 2 * READ_THREADS + 1

Key = TypeVar("Key")
Result = TypeVar("Result")


class ReadAhead(Generic[Key, Result]):
    """Does work on a few threads before it is asked for. For use by one thread; at its end no thread is left.

    Args:
        work: yields what keys name, in their order, on any thread. After an error it is called again with the keys
            behind that one. What it yields is kept until it is taken, so it should be small.
    """

    def __init__(self, work: Callable[[Sequence[Key]], Generator[Result, None, None]]) -> None:
        self._work = work
        self._pool = _new_pool()
        self._begun: dict[Key, tuple[Future[list[tuple[Result | None, Exception | None]]], int]] = {}
        self._has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True
        self._pool.shutdown(cancel_futures=True)  # waits for one piece of work a thread

    def has_begun(self, key: Key) -> bool:
        """Whether it was begun and not taken yet."""
        return key in self._begun

    def begin(self, keys: Sequence[Key]) -> None:
        """Begin to read, one after the other on one thread, unless too much has been left lying."""
        if len(self._begun) < _MAX_KEPT:
            future = self._pool.submit(self._read, keys)
            self._begun.update((key, (future, number)) for number, key in enumerate(keys))

    def _read(self, keys: Sequence[Key]) -> list[tuple[Result | None, Exception | None]]:
        read: list[tuple[Result | None, Exception | None]] = []
        while len(read) < len(keys) and not self._has_ended:
            try:
                with closing(self._work(keys[len(read) :])) as results:
                    for result in results:
                        read.append((result, None))
                        if self._has_ended:
                            break
            except Exception as error:  # noqa: BLE001 - raised where it is taken
                read.append((None, error))
        return read

    def take(self, key: Key) -> Result | None:
        """What the work returned, or None if it was not begun. Raises what the work raised."""
        if key not in self._begun:
            return None
        future, number = self._begun.pop(key)
        result, error = future.result()[number]
        if error is not None:
            raise error
        return result


def map_ahead(work: Callable[[Key], Result], keys: Iterable[Key], *, batch: int = 4) -> Generator[Result, None, None]:
    """Yield what ``work`` returns for each key, in order, working ahead on a few threads.

    Keys are taken on the calling thread. What the work raises ends it. Close the iterator if it is not read to its end.

    Args:
        work: called on any thread.
        keys: what to work on.
        batch: how many keys a thread gets at once, so many that handing them over costs little beside the work.
    """
    keys = iter(keys)
    begun: deque[Future[list[Result]]] = deque()
    pool = _new_pool()
    try:
        while some := list(islice(keys, batch)):
            begun.append(pool.submit(_map_batch, work, some))
            if len(begun) == _MAPPED_BATCHES:
                yield from begun.popleft().result()
        while begun:
            yield from begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _map_batch(work: Callable[[Key], Result], keys: list[Key]) -> list[Result]:
    return [work(key) for key in keys]


def _new_pool() -> ThreadPoolExecutor:
    """Threads begin with the first work for them."""
    return ThreadPoolExecutor(READ_THREADS, thread_name_prefix="mlflow-ipfs-read")
