"""Benchmark: freezing a run of 100,000 artifacts. The limit is 2 s.

A freeze reads one snapshot of the entries, stores the nodes of at least 101 directories durably, and records the pin
and the frozen path. It copies no files, so copying would not be a fair peer. The output states the part of the limit
that is used. Every measured freeze makes nodes that are new to the store.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import tempfile
from functools import partial
from pathlib import Path

from harness import PAIRS, measure_seconds
from large_run import DIRECTORIES, RUN, content_of, put_large_run
from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes

BAR_SECONDS = 2.0
ROOT = "bench"


def make_run(directory: Path) -> None:
    """Make the run. Called in a separate process, whose memory is not counted."""
    with open_store(Settings(store=directory)) as store:
        put_large_run(store, ROOT)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name) / "store"
        maker = multiprocessing.get_context("spawn").Process(target=make_run, args=(directory,))
        maker.start()
        maker.join()
        with open_store(Settings(store=directory)) as store:
            peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            seconds = []
            for turn in range(PAIRS + 1):  # the first turn is a warm-up
                with store.storage.publish() as publication:
                    data = content_of(DIRECTORIES, turn)
                    publication.put(cid := CID.of(data), data)
                    changed = [
                        MfsEntry(ROOT, f"{RUN}/{number:03}/file-0000.bin", cid, len(data), len(data), turn)
                        for number in range(DIRECTORIES)
                    ]
                    publication.commit(Changes(entries=changed))
                seconds.append(measure_seconds(partial(store.files.freeze, MfsPath(ROOT, RUN), f"b{turn}")))
            peak_after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    median = statistics.median(seconds[1:])
    line = {
        "benchmark": "freeze_a_run_of_100000_files",
        "measure": "wall seconds",
        "ours": round(median, 4),
        "largest": round(max(seconds[1:]), 4),
        "bar": BAR_SECONDS,
        "part_of_bar": round(median / BAR_SECONDS, 3),
        "peak_growth_mib": (peak_after - peak_before) // 1024,
        "turns": PAIRS,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
