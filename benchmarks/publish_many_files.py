"""Benchmark: publishing 10,000 files of 4 KiB in 100 directories, compared with shutil.copytree.

The peer does not sync its files. Ours is durable when it returns.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness import compare, measure_seconds, publish_into_new_store

DIRECTORIES, FILES_EACH, FILE_BYTES = 100, 100, 4096


def make_tree(directory: Path) -> None:
    """Make directories of files with random bytes."""
    for number in range(DIRECTORIES):
        below = directory / f"{number:03}"
        below.mkdir(parents=True)
        for file in range(FILES_EACH):
            (below / f"{file:03}.bin").write_bytes(os.urandom(FILE_BYTES))


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        source = directory / "source"
        make_tree(source)

        def copy() -> float:
            destination = directory / "copy"
            seconds = measure_seconds(lambda: shutil.copytree(source, destination))
            shutil.rmtree(destination)
            return seconds

        compare(
            "publish_10000_files_of_4_KiB",
            "wall seconds",
            lambda: publish_into_new_store(source, directory),
            copy,
            "shutil.copytree",
        )


if __name__ == "__main__":
    main()
