"""Runs ours and the peer back to back and prints the ratio as one JSON line.

Machines are noisy: what counts is the median of the ratios of interleaved pairs, not a time.
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


def measure_seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(benchmark: str, measure: str, ours: Callable[[], float], peer: Callable[[], float], peer_name: str) -> None:
    """Run interleaved pairs, after one unmeasured pair, and print medians and the median ratio.

    Args:
        benchmark: the question that the file asks.
        measure: what the numbers are, with the unit.
        ours: runs ours once and returns its number.
        peer: runs the peer once and returns its number.
        peer_name: who the peer is.
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


_stores = count()


def publish_into_new_store(source: Path, scratch: Path) -> float:
    """Wall time of adding a file or directory to a store that is empty; the store is removed again."""
    directory = scratch / f"store-{next(_stores)}"
    with open_store(Settings(store=directory)) as store:
        seconds = measure_seconds(lambda: store.add(source))
    shutil.rmtree(directory)
    return seconds
