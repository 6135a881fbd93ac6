"""Benchmark: downloading a large artifact through `mlflow server`, compared with stock MLflow and local artifacts.

It uses two real servers and the same HTTP client, which drops the data. Our server must answer a Range with 206, and
must not make a temporary file meanwhile. The limit of the ratio is 1.0.

Usage: python benchmarks/server_download.py [MEBIBYTES]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from harness import compare, measure_seconds
from publish_one_file import make_file
from served import Served, run_servers

NAME = "model.bin"


def check_range(served: Served, size_bytes: int) -> None:
    """End the benchmark if a Range is not answered with 206 and the requested part, or with a temporary file."""
    start = size_bytes // 2
    with served.without_temporary_files():
        answer = served.download(NAME, part=f"bytes={start}-")
        if answer != (206, size_bytes - start):
            sys.exit(f"a Range from byte {start} on was answered with status {answer[0]} and {answer[1]} bytes")
        served.download(NAME)


def download_all(served: Served, size_bytes: int) -> None:
    answer = served.download(NAME)
    if answer != (200, size_bytes):
        sys.exit(f"{served.server.url} answered with status {answer[0]} and {answer[1]} bytes")


def main(mebibytes: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        size_bytes = mebibytes << 20
        make_file(directory / NAME, mebibytes)
        with run_servers(directory) as (ours, stock):
            for served in (ours, stock):
                served.upload(NAME, directory / NAME)
            check_range(ours, size_bytes)
            compare(
                f"server_download_{mebibytes}_MiB",
                "wall seconds",
                lambda: measure_seconds(lambda: download_all(ours, size_bytes)),
                lambda: measure_seconds(lambda: download_all(stock, size_bytes)),
                "mlflow server with local artifacts",
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
