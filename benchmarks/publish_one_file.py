"""Benchmark: publishing one large file, compared with copying it with the same durability.

Usage: python benchmarks/publish_one_file.py [MEBIBYTES]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from harness import compare, measure_seconds, publish_into_new_store


def make_file(path: Path, mebibytes: int) -> None:
    """Make a file of random bytes."""
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))


def copy_durably(source: Path, destination: Path) -> None:
    """Copy the bytes of a file, without a reflink, and make the copy and its name durable."""
    with source.open("rb") as reader, destination.open("wb") as writer:
        while piece := reader.read(1 << 20):
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    directory = os.open(destination.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def main(mebibytes: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        source = directory / "source"
        make_file(source, mebibytes)

        def copy() -> float:
            destination = directory / "copy"
            seconds = measure_seconds(lambda: copy_durably(source, destination))
            destination.unlink()
            return seconds

        compare(
            f"publish_one_file_{mebibytes}_MiB",
            "wall seconds",
            lambda: publish_into_new_store(source, directory),
            copy,
            "copy and fsync",
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
