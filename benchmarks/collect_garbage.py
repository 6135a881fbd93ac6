"""Benchmark: time and memory of a gc of a million blocks, 90% of them needed, and the longest concurrent publication.

A collection cannot be compared with copying bytes. Instead of a peer, the results are compared with the limits of this
project (20 s, 150 MB, 1 s). The store contains 1,000 directories of 1,000 small files, one in ten of them garbage.
Every measured collection runs in a separate process while another process publishes without a pause.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import PAIRS
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import LocalStorage, open_local_storage

BLOCKS = int(os.environ.get("BENCH_BLOCKS", "1000000"))
FILES_PER_DIRECTORY, DIRECTORIES_PER_PUBLICATION = 1000, 10
BARS = {"wall seconds": 20.0, "peak memory above the idle interpreter, MB": 150.0, "longest publication, seconds": 1.0}


def publish_directories(storage: LocalStorage, first: int, count: int, owner: str | None) -> None:
    """Publish directories of new small files in one publication."""
    with storage.publish() as publication:
        nodes = NodeBuilder(publication.put, UNIXFS_V1_2025)
        pins = []
        for directory in range(first, first + count):
            links = []
            for file in range(FILES_PER_DIRECTORY):
                data = b"%d/%d " % (directory, file) * 8
                cid = CID.of(data)
                publication.put(cid, data)
                links.append(Link(cid, b"%06d" % file, len(data)))
            pins.append(nodes.build_directory(links).cid)
        publication.commit(Changes(pins=[Pin(owner, cid) for cid in pins] if owner else []))


def publish_many(directory: Path, first: int, count: int, *, owner: str | None) -> None:
    with open_local_storage(directory) as storage:
        for start in range(first, first + count, DIRECTORIES_PER_PUBLICATION):
            publish_directories(storage, start, min(DIRECTORIES_PER_PUBLICATION, first + count - start), owner)


def read_peak_kib() -> int:
    """Return the peak memory of this process in KiB. The peak of getrusage would include the parent before the fork."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def collect(directory: Path) -> None:
    """Run one collection and print its time and memory. Called in a separate process."""
    idle = read_peak_kib()
    started = time.perf_counter()
    with open_local_storage(directory) as storage:
        report = storage.collect_garbage(grace_seconds=0)
    seconds = time.perf_counter() - started
    peak = read_peak_kib()
    print(json.dumps([seconds, (peak - idle) / 1024, report.kept_blocks, report.removed_blocks]))


def publish_until_stopped(directory: Path) -> None:
    """Make small publications until standard input ends, then print the longest in seconds.

    Called in a separate process.
    """
    longest, number = 0.0, 0
    os.set_blocking(0, False)
    with open_local_storage(directory) as storage:
        while not _input_has_ended():
            number += 1
            started = time.perf_counter()
            with storage.publish() as publication:
                data = b"%d of %d" % (number, os.getpid())
                publication.put(CID.of(data), data)
                publication.commit(Changes(pins=[Pin("beside", CID.of(data))]))
            longest = max(longest, time.perf_counter() - started)
    print(longest)


def _input_has_ended() -> bool:
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


def collect_while_publishing(directory: Path) -> tuple[float, float, float]:
    script = [sys.executable, __file__]
    with subprocess.Popen([*script, "publish", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as publisher:
        output = subprocess.run([*script, "collect", directory], stdout=subprocess.PIPE, check=True).stdout
        longest, _ = publisher.communicate(timeout=60)
    seconds, megabytes, kept, removed = json.loads(output)
    print(f"{kept} kept, {removed} removed", file=sys.stderr)
    return seconds, megabytes, float(longest)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name, "store")
        directories = BLOCKS // FILES_PER_DIRECTORY
        publish_many(directory, 0, directories * 9 // 10, owner="benchmark")
        results = []
        for number in range(1, PAIRS + 1):
            publish_many(directory, number * directories, directories // 10, owner=None)
            results.append(collect_while_publishing(directory))
    for (measure, bar), values in zip(BARS.items(), zip(*results, strict=True), strict=True):
        median = statistics.median(values)
        line = {"benchmark": f"gc_of_{BLOCKS}_blocks", "measure": measure, "ours": round(median, 3), "peer": bar}
        print(json.dumps(line | {"peer_name": "the bar", "ratio": round(median / bar, 3), "pairs": PAIRS}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish_until_stopped(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    else:
        main()
