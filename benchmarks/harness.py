"""Harness of the benchmarks: runs ours and the peer back to back and prints the ratio as one JSON line.

Machines are noisy. The result is therefore the median of the ratios of interleaved pairs, not a time.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from itertools import count
from typing import TYPE_CHECKING

from mlflow_ipfs import Settings, open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIRS = int(os.environ.get("BENCH_PAIRS", "7"))

_store_numbers = count()


def measure_seconds(action: Callable[[], object]) -> float:
    """Return the wall time of one call in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(benchmark: str, measure: str, ours: Callable[[], float], peer: Callable[[], float], peer_name: str) -> None:
    """Run interleaved pairs, after one unmeasured pair, and print medians and the median ratio.

    Args:
        benchmark: name of the benchmark.
        measure: name of the measured quantity, with the unit.
        ours: runs ours once and returns the measured value.
        peer: runs the peer once and returns the measured value.
        peer_name: name of the peer.
    """
    ours()
    peer()
    pairs = [(ours(), peer()) for _ in range(PAIRS)]
    line = {
        "benchmark": benchmark,
        "measure": measure,
        "ours": round(statistics.median(pair[0] for pair in pairs), 4),
        "peer": round(statistics.median(pair[1] for pair in pairs), 4),
        "peer_name": peer_name,
        "ratio": round(statistics.median(pair[0] / pair[1] for pair in pairs), 3),
        "pairs": PAIRS,
    }
    print(json.dumps(line), flush=True)


def publish_into_new_store(source: Path, scratch: Path) -> float:
    """Return the wall time of adding a file or directory to an empty store, in seconds. Remove the store afterwards."""
    directory = scratch / f"store-{next(_store_numbers)}"
    with open_store(Settings(store=directory)) as store:
        seconds = measure_seconds(lambda: store.add(source))
    shutil.rmtree(directory)
    return seconds
