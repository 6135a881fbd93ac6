"""Output of the commands: text, sizes, tables and progress for users, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB", "EB")
_FIRST_DRAW_SECONDS: Final = 0.3  # shorter operations show no progress
_REDRAW_SECONDS: Final = 0.1
_BAR_WIDTH: Final = 20
DEFAULT_COLUMNS: Final = 80


def print_result(fields: Mapping[str, Any], line: str, *, as_json: bool) -> None:
    """Print one result, as a line of JSON or as text."""
    click.echo(json.dumps(fields) if as_json else line)


def print_notice(text: str) -> None:
    """Print a message that is neither a result nor an error to stderr."""
    click.echo(f"mlflow-ipfs: {text}", file=sys.stderr)


def format_size(size_bytes: int) -> str:
    """Return a size with its unit, in steps of 1000: ``1.2 MB``."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in _UNITS:
        size /= 1000
        if size < 999.95 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}"


def format_time(seconds: int | None) -> str:
    """Return a time as text, in UTC: ``2026-11-27 01:50Z``; ``-`` for None, ``unknown`` for what no calendar has."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (ValueError, OverflowError, OSError):
        return "unknown"


def format_count(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 block``, ``1,234 blocks``, ``2 directories``."""
    regular = f"{singular[:-1]}ies" if singular.endswith("ry") else f"{singular}s"
    return f"{number:,} {singular if number == 1 else plural or regular}"


def printable(text: str) -> str:
    """Return a name from content or from disk with control and undecodable characters escaped, safe for a terminal."""
    with contextlib.suppress(UnicodeEncodeError):  # surrogates that no undecodable byte becomes
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def align(rows: Iterable[Sequence[str]], *, right: frozenset[int] | set[int] = frozenset()) -> list[str]:
    """Format rows as aligned columns.

    Args:
        rows: the cells of each row.
        right: indices of the columns that are aligned to the right.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class Progress:
    """A progress line on the terminal, which disappears at the end of the operation.

    Nothing is drawn if the stream is not a terminal, or if the operation is short.

    Args:
        label: name of the operation.
        total_bytes: size of the whole operation, if known.
        stream: the stream to draw on; None: stderr.
        show: returns an amount as text, if the operation does not count bytes.
    """

    def __init__(
        self,
        label: str,
        total_bytes: int | None = None,
        *,
        stream: TextIO | None = None,
        show: Callable[[int], str] = format_size,
    ) -> None:
        self._show = show
        self._label = label
        self._total_bytes = total_bytes
        self._stream = stream or sys.stderr
        self._done_bytes = 0
        self._started = time.monotonic()
        self._next_draw = self._started + _FIRST_DRAW_SECONDS
        self._drawn = 0
        self._is_visible = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Erase the line, so that other text can be written."""
        if self._drawn:
            self._put("")
            self._stream.write("\r")
            self._stream.flush()

    def advance(self, count: int) -> None:
        """Record that ``count`` more bytes are done."""
        self._done_bytes += count
        now = time.monotonic()
        if self._is_visible and now >= self._next_draw:
            self._next_draw = now + _REDRAW_SECONDS
            self._put(self._line(now - self._started, _columns(self._stream) - 1))

    def _put(self, line: str) -> None:
        """Overwrite the line, padded with spaces, which work on every terminal."""
        self._stream.write("\r" + line.ljust(self._drawn))
        self._stream.flush()
        self._drawn = len(line)

    def _line(self, seconds: float, width: int) -> str:
        """Return the line in at most ``width`` characters; the label is shortened first."""
        text = f"{self._show(self._done_bytes)}  {self._show(int(self._done_bytes / seconds))}/s"
        if self._total_bytes:
            share = min(self._done_bytes / self._total_bytes, 1.0)
            bar = ("#" * int(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, "-")
            text = f"[{bar}] {share:4.0%}  {text.replace('  ', f' of {self._show(self._total_bytes)}  ')}"
        label_width = max(width - len(text) - 2, 1)
        label = self._label if len(self._label) <= label_width else f"{self._label[: label_width - 1]}…"
        return f"{label}  {text}"[:width]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return DEFAULT_COLUMNS
