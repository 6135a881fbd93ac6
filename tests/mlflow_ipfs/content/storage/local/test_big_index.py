"""An index of many blocks: opening, asking, publishing and a gc take memory that hardly depends on how many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.big_index import make_big_index

TESTS = Path(__file__).parents[4]
TIMEOUT_SECONDS = 900
BASE_BYTES = 24 << 20  # SQLite's caches, modules imported on the way, one batch of everything
BYTES_PER_BLOCK = 4  # marks are bits; a list of ids alone would take 40

_WORK = """
import json, os, re, sys
from pathlib import Path
from typing import Any
from mlflow_ipfs.content.storage.local import open_local_storage
from support.big_index import leaf_cid
from support.storages import publish_blocks, publish_file
from support.storages import multihashes

def peak_bytes():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

directory, count = Path(sys.argv[1]), int(sys.argv[2])
start = peak_bytes()
with open_local_storage(directory, create=False) as storage:
    found = [storage.blocks.has(leaf_cid(number)) for number in (0, count - 1, count)]
    publish_file(storage, os.urandom(100_000))
    publish_blocks(storage, *[os.urandom(1000) for _ in range(200)])
    asked = peak_bytes()
    report = storage.collect_garbage(dry_run=True, grace_seconds=0)
    listed = sum(1 for _ in multihashes(storage))
    collected = peak_bytes()
print(json.dumps({
    "found": found, "asked": asked - start, "collected": collected - start, "listed": listed,
    "kept": report.kept_blocks, "removed": report.removed_blocks,
}))
"""


def measure(directory: Path, count: int) -> dict[str, Any]:
    """Use the store in a fresh process. Returns what it found, and by how many bytes its memory grew."""
    done = subprocess.run(
        [sys.executable, "-c", _WORK, directory, str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def check_memory(directory: Path, count: int) -> None:
    make_big_index(directory, count, pinned=count * 3 // 5)
    measured = measure(directory, count)
    assert measured["found"] == [True, True, False]
    assert measured["asked"] < BASE_BYTES
    assert measured["collected"] < BASE_BYTES + BYTES_PER_BLOCK * count
    assert measured["removed"] == 0, "the pack is more than half needed, so it stays whole"
    assert measured["kept"] == measured["listed"] > count


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")


@needs_proc
@pytest.mark.slow
def test_a_hundred_thousand_blocks(directory: Path) -> None:
    check_memory(directory, 100_000)


@needs_proc
@pytest.mark.soak
@pytest.mark.fixed
@pytest.mark.timeout(1800)
def test_five_million_blocks(directory: Path) -> None:
    check_memory(directory, 5_000_000)
