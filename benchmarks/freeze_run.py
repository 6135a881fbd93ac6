"""How long does it take to freeze a run of 100,000 artifacts? The bar is 2 s.

One snapshot of the entries, the nodes of 101 and more directories stored durably, the pin and the frozen
path. A copy of the files would be no peer: ours copies no file. So there is none, and the line says
how much of the bar is used. Every measured freeze has nodes that are new to the store.
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
from large_run import DIRECTORYS, RUN, content_of, put_large_run
from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes

BAR_SECONDS = 2.0
ROOT = "bench"


def make_run(directory: Path) -> None:
    """In a process of its own, whose memory is not counted."""
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
            for turn in range(PAIRS + 1):  # the first is not counted
                with store.storage.publish() as publication:
                    data = content_of(DIRECTORYS, turn)
                    publication.put(cid := CID.of(data), data)
                    changed = [
                        MfsEntry(ROOT, f"{RUN}/{number:03}/file-0000.bin", cid, len(data), len(data), turn)
                        for number in range(DIRECTORYS)
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
