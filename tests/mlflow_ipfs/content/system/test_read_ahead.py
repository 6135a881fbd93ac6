"""Work done ahead on threads: results in order, errors in their place, and no thread left behind."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.system.read_ahead import READ_THREADS, ReadAhead, map_ahead

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mlflow-ipfs-read")]


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_results_come_in_the_order_of_the_keys(count: int, batch: int) -> None:
    assert list(map_ahead(slow_square, range(count), batch=batch)) == [number * number for number in range(count)]
    assert reading_threads() == []


def test_several_are_worked_on_at_once() -> None:
    meeting = threading.Barrier(READ_THREADS)

    def meet(number: int) -> int:
        meeting.wait(timeout=60)  # breaks if they come one after the other
        return number

    assert list(map_ahead(meet, range(READ_THREADS), batch=1)) == list(range(READ_THREADS))


def test_keys_are_not_taken_far_ahead() -> None:
    taken: list[int] = []

    def keys() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    with closing(map_ahead(slow_square, keys(), batch=1)) as results:
        next(results)
        assert len(taken) < 50
    assert reading_threads() == []


def test_an_error_ends_the_work() -> None:
    def work(number: int) -> int:
        if number == 10:
            raise ValueError(number)
        return number

    results = map_ahead(work, range(1000), batch=1)
    assert [next(results) for _ in range(10)] == list(range(10))
    with pytest.raises(ValueError, match="10"):
        next(results)
    assert reading_threads() == []


def test_what_was_begun_is_taken_in_any_order_and_raises_when_taken() -> None:
    calls: list[list[int]] = []

    def work(numbers: Sequence[int]) -> Generator[int, None, None]:
        calls.append(list(numbers))
        for number in numbers:
            if number == 2:
                raise OSError(number)
            yield number * number

    with ReadAhead(work) as ahead:
        ahead.begin([1, 2, 3])
        assert ahead.has_begun(3)
        assert ahead.take(3) == 9
        assert ahead.take(3) is None
        assert ahead.take(7) is None
        with pytest.raises(OSError, match="2"):
            ahead.take(2)
        assert ahead.take(1) == 1
    assert calls == [[1, 2, 3], [3]], "work is called again for what is behind an error"
    assert reading_threads() == []


def test_what_nobody_takes_has_a_limit() -> None:
    done: list[int] = []

    def work(numbers: Sequence[int]) -> Generator[None, None, None]:
        for number in numbers:
            done.append(number)
            yield None

    with ReadAhead(work) as ahead:
        for number in range(5000):
            ahead.begin([number])
    assert len(done) <= 1024


def test_the_end_waits_for_no_more_than_what_is_being_read() -> None:
    def work(numbers: Sequence[int]) -> Generator[None, None, None]:
        for _ in numbers:
            time.sleep(0.05)
            yield None

    started = time.monotonic()
    with ReadAhead(work) as ahead:
        for number in range(100):
            ahead.begin(range(number * 10, number * 10 + 10))  # 50 s of work
    assert time.monotonic() - started < 5
    assert reading_threads() == []
