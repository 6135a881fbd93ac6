"""Inputs of ``car import``: files, standard input, or several files joined to one stream."""

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
    """One CAR to import: a file, standard input, or several of them joined."""

    paths: tuple[Path, ...]

    @property
    def is_stdin(self) -> bool:
        """Return whether the source is standard input alone."""
        return self.paths == (STREAM,)

    @property
    def name(self) -> str:
        """Return the name of the source for messages."""
        return " + ".join("standard input" if path == STREAM else printable(str(path)) for path in self.paths)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the source for reading."""
        if len(self.paths) > 1:
            with io.BufferedReader(_JoinedFiles(self.paths), 1 << 20) as joined:
                yield joined
        else:
            with _open(self.paths[0]) as stream:
                yield stream


def list_sources(paths: Sequence[Path], *, join: bool) -> tuple[list[Source], int | None]:
    """Return the CARs to import and their total size in bytes; the size is None if standard input is one of them.

    Args:
        paths: the files, or ``-`` for standard input.
        join: treat the files as pieces of one CAR.

    Raises:
        click.UsageError: standard input is named twice.
        FileNotFoundError: a file does not exist.
    """
    if list(paths).count(STREAM) > 1:
        msg = "standard input (-) can be named only once"
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
    """Standard input, where each read is one read of the pipe.

    ``sys.stdin.buffer.read(n)`` waits inside C for all ``n`` bytes. It handles a Ctrl-C only when the next bytes
    arrive. If the sender stalls, the import could not be interrupted.
    """

    def read(self, size: int) -> bytes:
        stdin = cast("io.BufferedReader", sys.stdin.buffer)
        return stdin.read1(size) if size > 1 else stdin.read(size)  # single bytes come from the buffer


class _JoinedFiles(io.RawIOBase):
    """Several files as one stream."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._pieces = self._read_pieces(paths)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        self._wanted_bytes = len(buffer)
        piece = next(self._pieces, b"")
        buffer[: len(piece)] = piece
        return len(piece)

    def _read_pieces(self, paths: Sequence[Path]) -> Iterator[bytes]:
        for path in paths:
            with _open(path) as stream:
                while piece := stream.read(self._wanted_bytes):
                    yield piece
