"""Benchmark: memory for publishing one large file, above the idle interpreter. The limit is 200 MB.

The result is the peak of a new process after the publication, minus its peak before this package was imported.
Copying a file has no comparable memory use, so the result is compared with the limit instead of a peer.

Usage: python benchmarks/publish_memory.py [MEBIBYTES]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = int(os.environ.get("BENCH_PAIRS", "7"))
BAR_MB = 200.0


def read_peak_kib() -> int:
    """Return the peak memory of this process in KiB. The peak of getrusage would include the parent before the fork."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def publish(source: Path, directory: Path) -> None:
    """Publish, then print the growth of the peak in MB. Called in a separate process."""
    idle = read_peak_kib()
    from mlflow_ipfs import Settings, open_store  # noqa: PLC0415 - the memory of the package is measured, too

    with open_store(Settings(store=directory)) as store:
        store.add(source)
    print(json.dumps((read_peak_kib() - idle) * 1024 / 1e6))


def main(mebibytes: int) -> None:
    from publish_one_file import make_file  # noqa: PLC0415 - must not be imported in the measured process

    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        source = Path(name, "source")
        make_file(source, mebibytes)
        grown = []
        for number in range(PAIRS):
            directory = Path(name, f"store-{number}")
            command = [sys.executable, __file__, "publish", str(source), str(directory)]
            grown.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            shutil.rmtree(directory)
    median = statistics.median(grown)
    line = {
        "benchmark": f"publish_memory_{mebibytes}_MiB",
        "measure": "peak memory above the idle interpreter, MB",
        "ours": round(median, 1),
        "peer": BAR_MB,
        "peer_name": "the bar",
        "ratio": round(median / BAR_MB, 3),
        "pairs": PAIRS,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
