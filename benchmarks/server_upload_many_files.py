"""Benchmark: uploading many small artifacts through `mlflow server`, compared with stock MLflow and local artifacts.

One client sends the files one after the other over one connection, as MLflow's client does for a directory of a model.
Wall time contains the syncs that make each of our uploads durable; stock MLflow syncs nothing. So the peer is measured a second
time, with each of its files synced before the next one is sent. The processor time of the servers' processes is printed too: it
does not depend on what else the machine does.

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
from typing import TYPE_CHECKING

from harness import PAIRS, measure_seconds
from served import Served, run_servers, sync_artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE_BYTES = 4096
PEER = "mlflow server with local artifacts"


def processor_seconds(server: Served) -> float:
    """Return the processor time that all processes of a server have used so far."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[2]) == server.server.pid:  # the process group
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def synced(directory: Path, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield the files, and sync each one in the stock server's directory when the next one is asked for."""
    for name, body in files:
        yield name, body
        sync_artifact(directory, name)


def main(files: int) -> None:
    numbers = count()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name, run_servers(Path(name)) as servers:

        def upload(server: Served, *, syncs: bool = False) -> tuple[float, float]:
            number = next(numbers)
            bodies = [(f"{number}/{number}-{index:05}.bin", os.urandom(FILE_BYTES)) for index in range(files)]
            before = processor_seconds(server)
            seconds = measure_seconds(lambda: server.upload_all(synced(Path(name), bodies) if syncs else bodies))
            return seconds, processor_seconds(server) - before

        ours, stock = servers
        upload(ours)
        upload(stock)
        runs = [(upload(ours), upload(stock), upload(stock, syncs=True)) for _ in range(PAIRS)]
    report(files, "wall seconds", [(own[0], peer[0]) for own, peer, _ in runs], f"{PEER}, nothing synced")
    report(files, "wall seconds", [(own[0], peer[0]) for own, _, peer in runs], f"{PEER}, each file synced")
    report(files, "processor seconds of the server", [(own[1], peer[1]) for own, peer, _ in runs], PEER)


def report(files: int, measure: str, pairs: list[tuple[float, float]], peer_name: str) -> None:
    line = {
        "benchmark": f"server_upload_{files}_files",
        "measure": measure,
        "ours": round(statistics.median(ours for ours, _ in pairs), 3),
        "peer": round(statistics.median(peer for _, peer in pairs), 3),
        "peer_name": peer_name,
        "ratio": round(statistics.median(ours / peer for ours, peer in pairs), 3),
        "pairs": len(pairs),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
