"""Where ``car import`` reads from: files, standard input, or several files as one stream."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import click

from mlflow_ipfs.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

STREAM: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Source:
    """One CAR to import: a file, standard input, or several that are read as one."""

    paths: tuple[Path, ...]

    @property
    def is_stdin(self) -> bool:
        """Whether it is standard input alone."""
        return self.paths == (STREAM,)

    @property
    def name(self) -> str:
        """Its name for people."""
        return " + ".join("standard input" if path == STREAM else printable(str(path)) for path in self.paths)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading."""
        if len(self.paths) > 1:
            with io.BufferedReader(_JoinedFiles(self.paths), 1 << 20) as joined:
                yield joined
        else:
            with _open(self.paths[0]) as stream:
                yield stream


def list_sources(paths: Sequence[Path], *, join: bool) -> tuple[list[Source], int | None]:
    """The CARs that are named, and how many bytes they have together; None if nobody knows.

    Raises:
        click.UsageError: standard input is named twice.
        FileNotFoundError: a file is not there.
    """
    if list(paths).count(STREAM) > 1:
        msg = "standard input can be read only once"
        raise click.UsageError(msg)
    sizes = [None if path == STREAM else path.stat().st_size for path in paths]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return [Source(tuple(paths))] if join else [Source((path,)) for path in paths], total


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    if path == STREAM:
        yield cast("BinaryIO", _PiecewiseStdin())
        return
    with path.open("rb") as stream:
        yield stream


class _PiecewiseStdin:
    """Standard input, of which each read is one read of the pipe.

    ``sys.stdin.buffer.read(n)`` waits inside C for all ``n`` bytes. A Ctrl-C that comes between two pieces of a block is
    not looked at there before the next piece, and if the sender stalls, there is none.
    """

    def read(self, size: int) -> bytes:
        stdin = cast("io.BufferedReader", sys.stdin.buffer)
        return stdin.read1(size) if size > 1 else stdin.read(size)  # single bytes are taken from the buffer


class _JoinedFiles(io.RawIOBase):
    """The bytes of several files, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._pieces = self._read_pieces(paths)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever takes bytes
        self._room = len(buffer)
        piece = next(self._pieces, b"")
        buffer[: len(piece)] = piece
        return len(piece)

    def _read_pieces(self, paths: Sequence[Path]) -> Iterator[bytes]:
        for path in paths:
            with _open(path) as stream:
                while piece := stream.read(self._room):
                    yield piece
