"""Benchmark: uploading many small artifacts through `mlflow server`, compared with stock MLflow and local artifacts.

One client sends the files one after the other over one connection, as MLflow's client does for a directory of a model.
Wall time contains the syncs that make each of our uploads durable; stock MLflow syncs nothing. The processor time of the
servers' processes is printed too: it does not depend on what else the machine does.

Usage: python benchmarks/server_upload_many_files.py [FILES]
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
from itertools import count
from pathlib import Path

from harness import PAIRS, measure_seconds
from served import Served, run_servers

FILE_BYTES = 4096


def processor_seconds(server: Served) -> float:
    """Return the processor time that all processes of a server have used so far."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[2]) == server.server.pid:  # the process group
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main(files: int) -> None:
    numbers = count()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name, run_servers(Path(name)) as servers:

        def upload(server: Served) -> tuple[float, float]:
            number = next(numbers)
            bodies = [os.urandom(FILE_BYTES) for _ in range(files)]
            before = processor_seconds(server)
            seconds = measure_seconds(
                lambda: server.upload_all((f"{number}/{index:05}.bin", body) for index, body in enumerate(bodies))
            )
            return seconds, processor_seconds(server) - before

        for server in servers:
            upload(server)
        pairs = [[upload(server) for server in servers] for _ in range(PAIRS)]
    for index, measure in enumerate(("wall seconds", "processor seconds of the server")):
        values = [(ours[index], peer[index]) for ours, peer in pairs]
        line = {
            "benchmark": f"server_upload_{files}_files",
            "measure": measure,
            "ours": round(statistics.median(ours for ours, _ in values), 3),
            "peer": round(statistics.median(peer for _, peer in values), 3),
            "peer_name": "mlflow server with local artifacts, nothing synced",
            "ratio": round(statistics.median(ours / peer for ours, peer in values), 3),
            "pairs": PAIRS,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
