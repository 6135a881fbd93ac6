from __future__ import annotations

import io
import time

import pytest

from mlflow_ipfs.cli import terminal
from mlflow_ipfs.cli.terminal import Progress, align, format_count, format_size, printable


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234, "1.2 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2_560_000, "2.6 MB"),
        (10**12, "1.0 TB"),
        (5 * 10**21, "5000.0 EB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


def test_counts() -> None:
    assert [format_count(number, "block") for number in (0, 1, 1234)] == ["0 blocks", "1 block", "1,234 blocks"]


def test_columns() -> None:
    assert align([("a", "1 B", "x"), ("bbb", "10 B", "")], right={1}) == ["a     1 B  x", "bbb  10 B"]
    assert align([]) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï", "plain ünï"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
        ("\u202e", r"\u202e"),
    ],
)
def test_text_from_elsewhere_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_progress_of_something_else_than_bytes(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("reading", 40, stream=stream, show=lambda count: format_count(count, "run")) as progress:
        clock[0] = 2.0
        progress.advance(10)
        assert stream.getvalue() == "\rreading  [#####---------------]  25%  10 runs of 40 runs  5 runs/s"


def test_progress_has_bar_share_sizes_and_rate(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("adding x", 4_000_000, stream=stream) as progress:
        clock[0] = 2.0
        progress.advance(1_000_000)
        line = "adding x  [#####---------------]  25%  1.0 MB of 4.0 MB  500.0 kB/s"
        assert stream.getvalue() == f"\r{line}"
    assert stream.getvalue() == f"\r{line}\r{' ' * len(line)}\r"


def test_more_than_the_total_is_still_100_percent(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("adding x", 10, stream=stream) as progress:
        clock[0] = 1.0
        progress.advance(20)
        assert "[####################] 100%  20 B of 10 B" in stream.getvalue()


def test_short_work_shows_nothing(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("adding x", 10, stream=stream) as progress:
        clock[0] = 0.1
        progress.advance(10)
    assert stream.getvalue() == ""


def test_progress_is_drawn_ten_times_a_second_at_most(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("adding x", stream=stream) as progress:
        for step in range(1000):
            clock[0] = step / 1000
            progress.advance(1)
        assert 5 <= stream.getvalue().count("\r") <= 10


def test_progress_never_breaks_the_line(clock: list[float]) -> None:
    stream = FakeTerminal()
    with Progress("adding " + "x" * 200, 10, stream=stream) as progress:
        clock[0] = 1.0
        progress.advance(1)
        line = stream.getvalue().removeprefix("\r")
        assert len(line) == terminal.DEFAULT_COLUMNS - 1
        assert line.endswith("…  [##------------------]  10%  1 B of 10 B  1 B/s")
