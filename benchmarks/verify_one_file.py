"""Benchmark: verifying one large file, compared with `hashlib.sha256` of as many bytes in as many threads.

The peer only hashes: it reads no file and no index. Both work on blocks of 1 MiB. The limit of the ratio is 1.25.

Usage: python benchmarks/verify_one_file.py [MEBIBYTES]
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from pathlib import Path

from harness import compare, measure_seconds
from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.content.system.read_ahead import READ_THREADS
from publish_one_file import make_file

BLOCK_BYTES = 1 << 20


def hash_blocks(count: int) -> None:
    """Hash ``count`` blocks from memory, evenly distributed over the threads."""
    block = os.urandom(BLOCK_BYTES)

    def hash_share(blocks: int) -> None:
        for _ in range(blocks):
            hashlib.sha256(block).digest()

    shares = [count // READ_THREADS + (number < count % READ_THREADS) for number in range(READ_THREADS)]
    threads = [threading.Thread(target=hash_share, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(mebibytes: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        source = Path(name, "source")
        make_file(source, mebibytes)
        with open_store(Settings(store=Path(name, "store"))) as store:
            cid = store.add(source).cid

            def verify() -> None:
                report = store.verify(cid)
                if not report.ok or report.size_bytes < mebibytes << 20:
                    msg = f"the verification is incomplete or found problems: {report}"
                    raise RuntimeError(msg)

            compare(
                f"verify_one_file_{mebibytes}_MiB",
                "wall seconds",
                lambda: measure_seconds(verify),
                lambda: measure_seconds(lambda: hash_blocks(mebibytes)),
                f"hashlib.sha256 in {READ_THREADS} threads",
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
