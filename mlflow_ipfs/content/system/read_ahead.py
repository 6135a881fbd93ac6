"""Read-ahead on threads, for reading and hashing, while the caller takes the results in its own order.

The number of threads does not change the outcome: results, errors and their order are those of one thread. Hashing and
reading release Python's global interpreter lock, so the threads run in parallel.
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
BATCH_BYTES: Final = 4 << 20  # per task of a thread: starting a task and waiting for it cost as much as hashing 100 KiB
_MAX_PENDING: Final = 1024  # results that are not taken yet; beyond this number no task is started
_MAPPED_BATCHES: Final = 2 * READ_THREADS + 1

Key = TypeVar("Key")
Result = TypeVar("Result")


class ReadAhead(Generic[Key, Result]):
    """Executor that computes results on threads before the caller takes them. A context manager, for use by one thread.

    Args:
        work: yields the results for a sequence of keys, in their order. It runs on any thread. After an error it is
            called again with the keys after the failed one. Results are kept in memory until they are taken, so each
            should be small.
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
        self._pool.shutdown(cancel_futures=True)  # waits for at most one result per thread

    def has_begun(self, key: Key) -> bool:
        """Return whether the work for a key was started and its result not taken yet."""
        return key in self._begun

    def begin(self, keys: Sequence[Key]) -> None:
        """Start the work for some keys, in order on one thread. No-op while too many results are not taken yet."""
        if len(self._begun) < _MAX_PENDING:
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
            except Exception as error:  # noqa: BLE001 - raised by take
                read.append((None, error))
        return read

    def take(self, key: Key) -> Result | None:
        """Return the result for a key, or None if its work was not started. An error of the work is raised here."""
        if key not in self._begun:
            return None
        future, number = self._begun.pop(key)
        result, error = future.result()[number]
        if error is not None:
            raise error
        return result


def map_ahead(work: Callable[[Key], Result], keys: Iterable[Key], *, batch: int = 4) -> Generator[Result, None, None]:
    """Yield the result of ``work`` for each key, in order, computed ahead on threads.

    The calling thread iterates over the keys. An error of ``work`` ends the iteration. Close the iterator if it is not
    exhausted.

    Args:
        work: called on any thread.
        keys: the arguments of ``work``.
        batch: number of keys per task, large enough that starting a task costs little compared to the work.
    """
    keys = iter(keys)
    begun: deque[Future[list[Result]]] = deque()
    pool = _new_pool()
    try:
        while taken := list(islice(keys, batch)):
            begun.append(pool.submit(_map_batch, work, taken))
            if len(begun) == _MAPPED_BATCHES:
                yield from begun.popleft().result()
        while begun:
            yield from begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _map_batch(work: Callable[[Key], Result], keys: list[Key]) -> list[Result]:
    return [work(key) for key in keys]


def _new_pool() -> ThreadPoolExecutor:
    """Return a thread pool. Its threads start with their first task."""
    return ThreadPoolExecutor(READ_THREADS, thread_name_prefix="mlflow-ipfs-read")
