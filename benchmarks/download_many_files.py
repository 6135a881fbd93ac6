"""Benchmark: writing 10,000 files of 4 KiB in 100 directories to disk, compared with shutil.copytree.

Neither syncs its files. Ours hashes every byte, and gives a file its name only when the file is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from harness import compare, measure_seconds
from mlflow_ipfs import Settings, open_store
from publish_many_files import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        make_tree(directory / "source")
        numbers = count()

        def measure(write_tree: Callable[[Path], object]) -> float:
            # The outputs are removed only at the end, because file systems are slow right after deletions.
            destination = directory / f"out-{next(numbers)}"
            return measure_seconds(lambda: write_tree(destination))

        with open_store(Settings(store=directory / "store")) as store:
            cid = store.add(directory / "source").cid
            compare(
                "download_10000_files_of_4_KiB",
                "wall seconds",
                lambda: measure(lambda destination: store.view(cid, dst=destination)),
                lambda: measure(lambda destination: shutil.copytree(directory / "source", destination)),
                "shutil.copytree",
            )


if __name__ == "__main__":
    main()
