"""Benchmark: publishing 10,000 files of 4 KiB in 100 directories into a large index, compared with shutil.copytree.

The index has a million blocks unless the argument states another number. The target is set for 5,000,000. Every
published tree is new. The copy of the peer is made durable, too, in the cheapest possible way: one sync at the end. The
limit of the ratio is 1.5.

Usage: python benchmarks/publish_into_large_index.py [BLOCKS]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import compare, measure_seconds
from mlflow_ipfs import Settings, open_store
from publish_many_files import make_tree
from support.big_index import make_big_index


def main(blocks: int) -> None:
    numbers = count()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        make_big_index(directory / "store", blocks, pinned=0)

        def fresh_tree() -> Path:
            source = directory / f"source-{next(numbers)}"
            make_tree(source)
            os.sync()  # otherwise the next sync, which is measured, would also write these files
            return source

        def copy() -> float:
            source, destination = fresh_tree(), directory / "copy"

            def copy_durably() -> None:
                shutil.copytree(source, destination)
                os.sync()

            seconds = measure_seconds(copy_durably)
            shutil.rmtree(destination)
            shutil.rmtree(source)
            return seconds

        with open_store(Settings(store=directory / "store")) as store:

            def publish() -> float:
                source = fresh_tree()
                seconds = measure_seconds(lambda: store.add(source))
                shutil.rmtree(source)
                return seconds

            compare(
                f"publish_10000_files_into_{blocks}_blocks",
                "wall seconds",
                publish,
                copy,
                "shutil.copytree, and sync",
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
