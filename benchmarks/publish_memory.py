"""How much memory does publishing one large file take above the idle interpreter? The bar is 200 MB.

The peak of a fresh process after the publication, less its peak before anything of this package was imported.
Copying has no such number, so the bar stands in the peer's place.

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
    """Peak memory of this process. Not getrusage's: that begins with the parent's at the fork."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def publish(source: Path, directory: Path) -> None:
    """In a process of its own: publish, and print by how many MB the peak has grown."""
    idle = read_peak_kib()
    from mlflow_ipfs import Settings, open_store  # noqa: PLC0415 - its own memory counts

    with open_store(Settings(store=directory)) as store:
        store.add(source)
    print(json.dumps((read_peak_kib() - idle) * 1024 / 1e6))


def main(mebibytes: int) -> None:
    from publish_one_file import make_file  # noqa: PLC0415 - not in the measured process

    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        source = Path(name, "source")
        make_file(source, mebibytes)
        grown = []
        for number in range(PAIRS):
            directory = Path(name, f"store-{number}")
            command = [sys.executable, __file__, "publish", str(source), str(directory)]
            grown.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            shutil.rmtree(directory)
    middle = statistics.median(grown)
    line = {
        "benchmark": f"publish_memory_{mebibytes}_MiB",
        "measure": "peak memory above the idle interpreter, MB",
        "ours": round(middle, 1),
        "peer": BAR_MB,
        "peer_name": "the bar",
        "ratio": round(middle / BAR_MB, 3),
        "pairs": PAIRS,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
